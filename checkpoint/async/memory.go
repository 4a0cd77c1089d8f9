package async

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
)

// Names in the directory of images. Each rank has one image, rank-3.image, and while it is not durable (of rank 0: not
// committed) a note, rank-3.step-120.json.
const (
	imageSuffix = ".image"
	noteSuffix  = ".json"
)

// note is what lies beside an image that is to be finished.
type note struct {
	// Image is what Image.Describe gave.
	Image []byte `json:"image"`
	// Commit is what to commit, of rank 0.
	Commit *checkpoint.CommitRequest `json:"commit,omitempty"`
}

// memory is where the image of one rank lies.
type memory struct {
	dir    string // "": private memory
	rank   int
	mem    []byte
	mapped bool
}

func (m *memory) imagePath() string {
	return filepath.Join(m.dir, fmt.Sprintf("rank-%d%s", m.rank, imageSuffix))
}

func (m *memory) notePath(step uint64) string {
	return filepath.Join(m.dir, fmt.Sprintf("rank-%d.step-%d%s", m.rank, step, noteSuffix))
}

// take gives n bytes, in the place of those before. Each page is touched, so that no later copy pays for that: fresh pages take ten times as long.
func (m *memory) take(n int64) ([]byte, error) {
	if err := m.unmap(); err != nil {
		return nil, err
	}
	if m.dir == "" {
		mem, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
		if err != nil {
			return nil, fmt.Errorf("take %d bytes for the copy of a checkpoint: %w", n, err)
		}
		_ = unix.Madvise(mem, unix.MADV_HUGEPAGE) // advice
		m.mem, m.mapped = mem, true
		return mem, nil
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, fmt.Errorf("take memory for the copy of a checkpoint: %w", err)
	}
	f, err := os.OpenFile(m.imagePath(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take memory for the copy of a checkpoint: %w", err)
	}
	defer f.Close() //nolint:errcheck // the map stays
	// Allocated now: a tmpfs that is full must say so here, and not kill the process at some write.
	if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
		return nil, fmt.Errorf("take %d bytes in %s for the copy of a checkpoint: %w: raise the size of that file system, or save without it", n, m.dir, err)
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", m.imagePath(), err)
	}
	m.mem, m.mapped = mem, true
	return mem, nil
}

// note tells the agent that the image is whole and not durable yet.
func (m *memory) note(i *checkpoint.Image, c checkpoint.CommitRequest) error {
	if m.dir == "" {
		return nil
	}
	var n note
	var err error
	if n.Image, err = i.Describe(); err != nil {
		return err
	}
	if m.rank == 0 {
		n.Commit = &c
	}
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	path := m.notePath(i.Ref().Step)
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// drop takes the note away.
func (m *memory) drop(step uint64) error {
	if m.dir == "" {
		return nil
	}
	if err := os.Remove(m.notePath(step)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (m *memory) unmap() error {
	if !m.mapped {
		return nil
	}
	mem := m.mem
	m.mem, m.mapped = nil, false
	return unix.Munmap(mem)
}

// release gives the memory back. Notes that are left stay, and with them the image, for the agent.
func (m *memory) release() error {
	err := m.unmap()
	if m.dir == "" {
		return err
	}
	left, _ := filepath.Glob(filepath.Join(strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`).Replace(m.dir), fmt.Sprintf("rank-%d.step-*%s", m.rank, noteSuffix)))
	if len(left) > 0 {
		return err
	}
	if rm := os.Remove(m.imagePath()); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}
