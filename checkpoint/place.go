package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// placeTries bounds how often place looks again after somebody else has moved something.
const placeTries = 4

// place moves the directory to the checkpoint's name, and says whether that is committed already. Another process may do the same at the
// same time: the rename has one winner, and the loser goes on with what the winner has moved.
func (s *Store) place(ctx context.Context, from, dir string) (done bool, err error) {
	if err := checkFrom(from); err != nil {
		return false, err
	}
	empty := false
	for range placeTries {
		// In this order: whoever finds it committed finds the directory gone that was committed.
		if done, err = s.exists(dir + "/" + manifestName); err != nil {
			return false, err
		}
		files, err := s.fs.ReadDir(from)
		isThere := err == nil
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return false, fmt.Errorf("list %s: %w", from, err)
		case done && isThere:
			return false, fmt.Errorf("%s: %w: commit %s as a later step", dir, ErrCommitted, from)
		case done:
			return true, nil
		case isThere && len(files) == 0 && !empty:
			empty = true // perhaps it was moved while it was listed
			continue
		case isThere && len(files) == 0:
			return false, fmt.Errorf("%s is empty: %w", from, ErrIncomplete)
		case !isThere:
			if _, err := s.fs.ReadDir(dir); errors.Is(err, fs.ErrNotExist) {
				return false, fmt.Errorf("neither %s nor a begun %s is there: %w", from, dir, ErrIncomplete)
			} else if err != nil {
				return false, err
			}
			return false, s.fs.SyncDir(".") // who moved it may not have come so far
		}
		if err = s.fs.Rename(from, dir); err == nil {
			return false, s.fs.SyncDir(".")
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody has moved it just now
		}
		if _, lerr := s.fs.ReadDir(dir); lerr != nil {
			return false, fmt.Errorf("move %s to %s: %w", from, dir, err)
		}
		if err := s.giveWay(ctx, from, dir); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("%s: others move it at the same time: commit again: %w", from, ErrIncomplete)
}

// giveWay removes what a try of the same step left that was cut short, for newer files that lie in from. It is moved out of the way
// first: if that turns out to have been the newer files, which somebody else had put there just before, they go back.
func (s *Store) giveWay(ctx context.Context, from, dir string) error {
	if _, err := s.fs.ReadDir(from); errors.Is(err, fs.ErrNotExist) {
		return nil // somebody has moved them
	}
	aside := dir + sealedSuffix
	if err := s.deleteTree(ctx, aside, 0); err != nil {
		return err
	}
	if err := s.fs.Rename(dir, aside); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("move %s, of which the commit was cut short, out of the way: %w", dir, err)
	}
	complete, err := s.exists(aside + "/" + manifestName)
	if err != nil {
		return err
	}
	if _, err := s.fs.ReadDir(from); complete || errors.Is(err, fs.ErrNotExist) {
		if err := s.fs.Rename(aside, dir); err == nil || complete {
			return err
		}
		if _, err := s.fs.ReadDir(dir); err != nil {
			return fmt.Errorf("put %s back: %w", dir, err)
		} // the newer files are in place: what was moved is what was left
	}
	return s.deleteTree(ctx, aside, 0)
}

// checkFrom refuses directories that are not the program's own.
func checkFrom(from string) error {
	_, err := ParseRef(strings.TrimSuffix(strings.TrimSuffix(from, deadSuffix), sealedSuffix))
	_, _, _, isPart := ParsePartDir(from)
	if !fs.ValidPath(from) || from == "." || strings.Contains(from, "/") || from == fenceDir || from == pinDir || from == leaseDir || from == partsDir || isPart || err == nil {
		return fmt.Errorf("%w: %q is not the name of a directory in the job's checkpoint directory that a program may have written, such as tmp-500", ErrInvalid, from)
	}
	return nil
}
