package async

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
)

// Finish makes durable what a worker that has died had copied and not yet written, and commits it if that worker was rank 0: it waits
// at most within for the other ranks' shards. dir is the worker's directory of images. It gives what was committed. Nothing may
// use dir meanwhile; the caller removes it. Errors are of single images, joined; ErrFenced and the like mean that the job has gone on.
func Finish(ctx context.Context, store *checkpoint.Store, dir string, within time.Duration) ([]checkpoint.Manifest, error) {
	notes, err := pending(dir)
	if err != nil || len(notes) == 0 {
		return nil, err
	}
	var out []checkpoint.Manifest
	var errs []error
	ended := func(p pendingNote, m *checkpoint.Manifest, err error) {
		if err == nil {
			err = os.Remove(p.path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("finish %s: %w", filepath.Base(p.path), err))
			return
		}
		if m != nil {
			out = append(out, *m)
		}
	}
	// All shards first: a commit waits for them.
	var commits []pendingNote
	for _, p := range notes {
		n, err := p.write(ctx, store)
		if err != nil || n.Commit == nil {
			ended(p, nil, err)
			continue
		}
		p.commit = n.Commit
		commits = append(commits, p)
	}
	for _, p := range commits {
		m, err := Commit(ctx, store, *p.commit, within, func() bool { return false })
		ended(p, &m, err)
	}
	return out, errors.Join(errs...)
}

// pendingNote is a note that was found.
type pendingNote struct {
	path, image string
	rank        int
	step        uint64
	commit      *checkpoint.CommitRequest
}

// pending lists the notes in a directory, the earliest step first. A missing directory has none.
func pending(dir string) ([]pendingNote, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []pendingNote
	for _, e := range entries {
		p := pendingNote{path: filepath.Join(dir, e.Name())}
		name, ok := strings.CutSuffix(e.Name(), noteSuffix)
		if n, err := fmt.Sscanf(name, "rank-%d.step-%d", &p.rank, &p.step); !ok || err != nil || n != 2 {
			continue
		}
		p.image = filepath.Join(dir, fmt.Sprintf("rank-%d%s", p.rank, imageSuffix))
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b pendingNote) int {
		if a.step != b.step {
			return int(min(1, max(-1, int64(a.step)-int64(b.step)))) //nolint:gosec // steps are far below the limit
		}
		return a.rank - b.rank
	})
	return out, nil
}

// maxNoteBytes bounds a note: an image's description is as large as a manifest at most.
const maxNoteBytes = 2 * checkpoint.MaxManifestBytes

// write makes the noted image a durable shard, unless it is one already.
func (p *pendingNote) write(ctx context.Context, store *checkpoint.Store) (note, error) {
	var n note
	info, err := os.Stat(p.path)
	if err != nil {
		return n, err
	}
	if info.Size() > maxNoteBytes {
		return n, fmt.Errorf("the note has %d bytes, at most %d are allowed", info.Size(), maxNoteBytes)
	}
	data, err := os.ReadFile(p.path)
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(data, &n); err != nil {
		return n, err
	}
	err = writeImage(ctx, store, p.image, n.Image)
	switch {
	case errors.Is(err, checkpoint.ErrCommitted):
		return n, nil
	case n.Commit != nil && errors.Is(err, errOtherStep):
		return n, nil // its shard was durable before the memory was used again
	}
	return n, err
}

// errOtherStep says that an image does not hold what its note says.
var errOtherStep = errors.New("the image is of another step")

// writeImage maps an image and makes it a durable shard.
func writeImage(ctx context.Context, store *checkpoint.Store, path string, description []byte) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // it was only read from
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(mem)) }()
	image, err := store.OpenImage(mem, description)
	if errors.Is(err, checkpoint.ErrKey) {
		return fmt.Errorf("the worker's own process alone could write it: %w", err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errOtherStep, err)
	}
	_, err = image.Write(ctx)
	return err
}
