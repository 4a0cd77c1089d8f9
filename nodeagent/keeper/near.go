package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/gangline/gangline/checkpoint"
)

// Near is the node's own disk, where a start has the checkpoint of files that it resumes from.
type Near struct {
	// Dirs are directories of the job's checkpoints there. What is missing is written into the first; whole copies may lie in all of them.
	Dirs []string
	// Room says whether so many bytes may be written there; nil: as long as the disk takes them.
	Room func(bytes int64) error
	// Tensors makes a whole copy of a checkpoint of tensors there, and gives its path; nil: none is made.
	Tensors func(ctx context.Context, t Tensors) (string, error)
}

// Tensors is a checkpoint of tensors of which a whole copy is to be made.
type Tensors struct {
	Manifest checkpoint.Manifest
	Bytes    []byte // the manifest's file, authenticated
	// Far reads chunks of its files from the shared storage, verified.
	Far func(ctx context.Context, name string, at int64, dst []byte) error
	// Verify reads all of it there.
	Verify func(ctx context.Context) error
}

// resumeNear finds the newest checkpoint of files that verifies, as Latest does, and has it whole on the node's own disk: a copy that is there is read and verified, and
// nothing fetched; else it is fetched, each chunk verified, so that the shared storage is read once. Where the disk cannot take it, the
// checkpoint is verified and used where it is. False: Latest is to decide.
func (j *Job) resumeNear(ctx context.Context, far *checkpoint.Store, out *Resumed) (bool, error) {
	refs, err := far.List(ctx)
	if err != nil {
		return false, err
	}
	var skipped []checkpoint.Skipped
	for _, ref := range refs {
		m, err := far.Load(ctx, ref)
		if err == nil && m.WorldSize != 0 {
			return false, nil // of tensors: each rank reads its part, verified
		}
		path := ""
		if err == nil {
			path, err = j.bringNear(ctx, far, m, out)
		}
		var damage *checkpoint.CorruptError
		if err != nil && ctx.Err() == nil && m.Dir != "" && !errors.As(err, &damage) {
			out.Far = append(out.Far, fmt.Errorf("%s is used where it is: %w", ref, err))
			path = filepath.Join(j.Dir, m.Dir)
			err = far.Verify(ctx, m)
		}
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err == nil:
			out.Path, out.Skipped = path, skipped
			return true, nil
		}
		skipped = append(skipped, checkpoint.Skipped{Ref: ref, Dir: ref.String(), Err: err})
	}
	return false, nil
}

// bringNear gives the path of a whole, verified copy on the node's own disk. A *checkpoint.CorruptError is of the checkpoint itself.
func (j *Job) bringNear(ctx context.Context, far *checkpoint.Store, m checkpoint.Manifest, out *Resumed) (string, error) {
	manifest, err := far.ManifestFile(&m)
	if err != nil {
		return "", err
	}
	var first *checkpoint.Store
	for _, dir := range j.Near.Dirs {
		near, err := openAt(dir, m.Job)
		if err != nil {
			return "", err
		}
		if first == nil {
			first = near
		}
		err = sameAndWhole(ctx, near, m.Ref(), manifest)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case err == nil:
			return filepath.Join(dir, m.Ref().String()), nil
		case errors.Is(err, checkpoint.ErrNone):
			continue
		}
		out.Far = append(out.Far, fmt.Errorf("the copy on the node's own disk is fetched anew: %w", err))
		if err := os.RemoveAll(filepath.Join(dir, m.Ref().String())); err != nil {
			return "", err
		}
	}
	if j.Near.Room != nil {
		if err := j.Near.Room(m.Bytes()); err != nil {
			return "", err
		}
	}
	files := opened{store: far, m: m, files: map[string]*openFile{}}
	defer files.closeIdle()
	if _, err := first.Receive(ctx, manifest, files.read); err != nil {
		return "", err
	}
	return filepath.Join(j.Near.Dirs[0], m.Ref().String()), nil
}

func openAt(dir, job string) (*checkpoint.Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	fsys, err := checkpoint.NewDir(dir)
	if err != nil {
		return nil, err
	}
	return checkpoint.Open(checkpoint.Config{FS: fsys, Job: job})
}

// sameAndWhole says whether a checkpoint is there, with this manifest, and verifies; ErrNone: it is not there.
func sameAndWhole(ctx context.Context, s *checkpoint.Store, ref checkpoint.Ref, manifest []byte) error {
	m, err := s.Load(ctx, ref)
	if err != nil {
		return err
	}
	here, err := s.ManifestFile(&m)
	if err == nil && !bytes.Equal(here, manifest) {
		err = fmt.Errorf("%s on the node's own disk is another checkpoint than on the shared storage", ref)
	}
	if err != nil {
		return err
	}
	return s.Verify(ctx, m)
}

// maxOpen bounds the files that are open at the same time while a checkpoint is fetched: two are being read.
const maxOpen = 16

// opened are a checkpoint's files while they are fetched.
type opened struct {
	store *checkpoint.Store
	m     checkpoint.Manifest

	mu    sync.Mutex
	files map[string]*openFile
}

type openFile struct {
	*checkpoint.CheckedFile
	readers int
}

// read gives chunks of a file.
func (o *opened) read(ctx context.Context, name string, at int64, dst []byte) error {
	f, err := o.open(name)
	if err != nil {
		return err
	}
	defer o.done(f)
	got, err := f.ReadChunks(ctx, int(at/f.ChunkBytes()), dst)
	if err == nil && len(got) != len(dst) {
		err = fmt.Errorf("%w: %d bytes of %s at %d, want %d", checkpoint.ErrInvalid, len(got), name, at, len(dst))
	}
	return err
}

func (o *opened) open(name string) (*openFile, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.files[name]
	if f == nil {
		if len(o.files) >= maxOpen {
			o.closeIdle()
		}
		c, err := o.store.OpenFile(o.m, name)
		if err != nil {
			return nil, err
		}
		f = &openFile{CheckedFile: c}
		o.files[name] = f
	}
	f.readers++
	return f, nil
}

func (o *opened) done(f *openFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.readers--
}

// closeIdle closes what nobody reads just now. The mutex is held, or nobody is left.
func (o *opened) closeIdle() {
	for name, f := range o.files { // any order: all of them
		if f.readers == 0 {
			_ = f.Close() // it was only read from
			delete(o.files, name)
		}
	}
}
