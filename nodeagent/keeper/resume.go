package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gangline/gangline/checkpoint"
)

// Resumed says what a start resumes from.
type Resumed struct {
	// Path is the checkpoint's directory; empty: the job has none of files, or its newest holds tensors, which programs verify as they read, and has no whole copy here.
	Path string
	// Skipped are newer ones that are damaged.
	Skipped []checkpoint.Skipped
	// Far is why the checkpoint, or one before it, is not on the node's own disk, or was fetched there anew though it was.
	Far []error
	// Aside are directories that a program had renamed for a commit before its node was lost, and where they are now.
	Aside []string
}

// Resume begins the epoch in a job's directory and finds the newest checkpoint of files whose every byte verifies. Every agent
// of the gang comes to the same, because the fence makes what older epochs committed final. first is set on one of them: it moves what was
// never committed aside, so that it does not become a checkpoint of an epoch that did not write it. Without checkpoints of
// files it touches nothing. Where the job has a key, it must have authenticated what is resumed from. Errors: checkpoint.ErrAllBad, ErrUnauthenticated, ErrKey, ErrFenced, the context's, the file system's; then the job must not start from nothing.
func Resume(ctx context.Context, job Job, first bool) (Resumed, error) {
	var out Resumed
	if job.Local != "" { // whichever node is the first: nobody else sees it
		if _, err := job.moveAside(job.Local, true, &out); err != nil {
			return out, err
		}
	}
	found, err := job.moveAside(job.Dir, first, &out)
	if err != nil {
		return out, err
	}
	if !found {
		return out, nil
	}
	store, err := job.open()
	if err != nil {
		return out, fmt.Errorf("open the checkpoints in %s: %w", job.Dir, err)
	}
	if ok, err := newestIsFiles(ctx, store); err != nil || !ok {
		if err == nil && job.Near != nil && job.Near.Tensors != nil {
			err = job.resumeTensors(ctx, &out)
		}
		return out, err
	}
	if store, err = job.openWithKeys(ctx, &keyring{}); err != nil {
		return out, fmt.Errorf("open the checkpoints in %s: %w", job.Dir, err)
	}
	if err := store.Fence(ctx, job.Key.Epoch); err != nil {
		return out, err
	}
	if job.Near != nil {
		if done, err := job.resumeNear(ctx, store, &out); done || err != nil {
			return out, err
		}
	}
	m, skipped, err := store.Latest(ctx)
	out.Skipped = skipped
	switch {
	case errors.Is(err, checkpoint.ErrNone):
		return out, nil
	case err != nil:
		return out, fmt.Errorf("find the checkpoint to resume from in %s: %w", job.Dir, err)
	case m.WorldSize == 0:
		out.Path = filepath.Join(job.Dir, m.Dir)
	}
	return out, nil
}

// moveAside looks for checkpoints in a directory, which may be missing, and moves away what an earlier epoch has not committed, if move is set.
func (j *Job) moveAside(dir string, move bool, out *Resumed) (found bool, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the checkpoint to resume from: %w", err)
	}
	for _, e := range entries {
		if _, err := checkpoint.ParseRef(e.Name()); err == nil {
			found = true
		}
		if _, ok := Step(e.Name()); ok && e.IsDir() && move {
			to := fmt.Sprintf("uncommitted-%s.before-epoch-%d", e.Name(), j.Key.Epoch)
			if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(dir, to)); err != nil {
				return found, fmt.Errorf("move files aside that an earlier epoch did not commit: %w", err)
			}
			out.Aside = append(out.Aside, to)
		}
	}
	return found, nil
}

// Newest gives the newest checkpoint in a job's directory whose manifest can be used, the zero Ref if there is none. authentic: by the job's keys, if it has any. Errors: ErrKey,
// ErrUnauthenticated, the context's, the file system's.
func Newest(ctx context.Context, job Job, authentic bool) (checkpoint.Ref, error) {
	if _, err := os.Stat(job.Dir); errors.Is(err, fs.ErrNotExist) {
		return checkpoint.Ref{}, nil
	}
	store, err := job.open()
	if authentic {
		store, err = job.openWithKeys(ctx, &keyring{})
	}
	if err != nil {
		return checkpoint.Ref{}, err
	}
	refs, err := store.List(ctx)
	if err != nil {
		return checkpoint.Ref{}, err
	}
	for _, ref := range refs {
		var damage *checkpoint.CorruptError
		switch _, err := store.Load(ctx, ref); {
		case err == nil:
			return ref, nil
		case !errors.As(err, &damage) && !errors.Is(err, checkpoint.ErrInvalid) && !errors.Is(err, checkpoint.ErrNone):
			return checkpoint.Ref{}, err
		}
	}
	return checkpoint.Ref{}, nil
}

// newestIsFiles says whether the newest checkpoint whose manifest can be read holds a program's own files.
func newestIsFiles(ctx context.Context, store *checkpoint.Store) (bool, error) {
	refs, err := store.List(ctx)
	if err != nil {
		return false, err
	}
	for _, ref := range refs {
		if m, err := store.Load(ctx, ref); err == nil {
			return m.WorldSize == 0, nil
		}
	}
	return len(refs) > 0, nil // all damaged: let it be said
}
