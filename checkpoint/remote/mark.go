package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gangline/gangline/checkpoint"
)

// markDir is where a job's directory says which of its checkpoints have a copy: a file for each, of the checkpoint's name, that holds the address. It
// is for people and for whoever pushes; a Pull looks into the bucket itself.
const markDir = "pushed"

// maxMark bounds an address.
const maxMark = 4096

// Mark notes in a job's directory that a checkpoint has a copy at an address, and drops the notes of checkpoints that are no longer here.
func Mark(dir string, ref checkpoint.Ref, address string) error {
	marks := filepath.Join(dir, markDir)
	if err := os.Mkdir(marks, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // as the checkpoints themselves
		return fmt.Errorf("note the copy of %s: %w", ref, err)
	}
	temp := filepath.Join(marks, ref.String()+".tmp")
	err := os.WriteFile(temp, []byte(address), 0o644) //nolint:gosec // likewise
	if err == nil {
		err = os.Rename(temp, filepath.Join(marks, ref.String()))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("note the copy of %s: %w", ref, err), os.RemoveAll(temp))
	}
	entries, err := os.ReadDir(marks)
	if err != nil {
		return fmt.Errorf("note the copy of %s: %w", ref, err)
	}
	for _, e := range entries {
		if old, err := checkpoint.ParseRef(e.Name()); err != nil || old == ref {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, e.Name())); errors.Is(err, fs.ErrNotExist) {
			_ = os.Remove(filepath.Join(marks, e.Name())) // the next one tries again
		}
	}
	return nil
}

// Marks gives the addresses that are noted in a job's directory. What cannot be read is left out.
func Marks(dir string) map[checkpoint.Ref]string {
	out := map[checkpoint.Ref]string{}
	entries, err := os.ReadDir(filepath.Join(dir, markDir))
	if err != nil {
		return out
	}
	for _, e := range entries {
		ref, err := checkpoint.ParseRef(e.Name())
		if err != nil || !e.Type().IsRegular() {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, markDir, e.Name())); err == nil && len(b) <= maxMark {
			out[ref] = string(b)
		}
	}
	return out
}
