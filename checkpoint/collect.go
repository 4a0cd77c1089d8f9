package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

// CollectRequest says who collects and what stays.
type CollectRequest struct {
	// Epoch is the caller's epoch, the highest that has begun: a late process of an older one must not remove anything.
	Epoch uint64
	// Keep is how many complete checkpoints stay, at least 1. With 1, damage to that one loses all; 2 or more is advised.
	Keep int
}

// Collected says what Collect did.
type Collected struct {
	Kept    []Ref     // complete checkpoints that stay, the newest first
	Removed []string  // names of the directories removed
	Skipped []Skipped // complete ones that do not verify
}

// Collect removes complete checkpoints beyond the newest Keep that verify, what is left of half-written ones of older
// epochs, and half-written steps of this epoch older than its newest complete one (ranks write steps in rising
// order). Before it removes any complete checkpoint it reads one of those that stay in full, the newest that verifies, unless this
// Store has done so already; if none verifies, none is removed. A damaged one counts for nothing; it is removed once a newer one
// verifies. Errors: ErrFenced, ErrNotBegun, ErrInvalid, the context's, the file system's; what it did until then is in Collected,
// and the next call does the rest.
func (s *Store) Collect(ctx context.Context, r CollectRequest) (Collected, error) {
	var out Collected
	if r.Keep < 1 {
		return out, fmt.Errorf("%w: collect: keep %d checkpoints, want at least 1", ErrInvalid, r.Keep)
	}
	if err := s.current(ctx, r.Epoch, "collect"); err != nil {
		return out, err
	}
	found, dead, err := s.folders()
	if err != nil {
		return out, err
	}
	for _, name := range dead { // a removal that a crash cut short
		if err := s.removeTree(ctx, name, &out); err != nil {
			return out, err
		}
	}
	if err := s.collectHalf(ctx, r, found, &out); err != nil {
		return out, err
	}
	if err := s.collectComplete(ctx, r, found, &out); err != nil {
		return out, err
	}
	if len(out.Removed) == 0 {
		return out, nil
	}
	return out, s.fs.SyncDir(".")
}

// collectHalf removes half-written checkpoints that nobody can be writing.
func (s *Store) collectHalf(ctx context.Context, r CollectRequest, found []folder, out *Collected) error {
	newest := Ref{} // this epoch's newest complete one
	for _, f := range found {
		if f.complete && f.ref.Epoch == r.Epoch && f.ref.Compare(newest) > 0 {
			newest = f.ref
		}
	}
	for _, f := range found {
		over := f.ref.Epoch < r.Epoch || f.ref.Epoch == r.Epoch && f.ref.Compare(newest) < 0
		if f.complete || !over {
			continue
		}
		// Sealed first, so that no commit can come between: then it would be complete, and stay.
		name, err := s.seal(f)
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		if err := s.removeTree(ctx, name, out); err != nil {
			return err
		}
	}
	return nil
}

// collectComplete decides which complete checkpoints stay, then removes the others.
func (s *Store) collectComplete(ctx context.Context, r CollectRequest, found []folder, out *Collected) error {
	complete := 0
	for _, f := range found {
		if f.complete {
			complete++
		}
	}
	var old []folder
	for _, f := range found {
		if !f.complete {
			continue
		}
		if len(out.Kept) >= r.Keep {
			old = append(old, f)
			continue
		}
		m, err := s.load(f.name)
		if err == nil && len(out.Kept) == 0 && complete > r.Keep && !s.wasVerified(f.name) {
			err = s.Verify(ctx, m)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err == nil {
			out.Kept = append(out.Kept, f.ref)
			continue
		}
		if len(out.Kept) > 0 && damaged(err) {
			old = append(old, f)
		}
		out.Skipped = append(out.Skipped, Skipped{Ref: f.ref, Dir: f.name, Err: err})
	}
	if complete <= r.Keep {
		return nil // nothing was read in full, and nothing needs to go
	}
	for _, f := range old {
		if err := s.removeComplete(ctx, f, out); err != nil {
			return err
		}
	}
	return nil
}

// damaged says whether err is about the bytes themselves, not about reaching them.
func damaged(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}

// removeComplete takes a complete checkpoint out of sight in one step, then deletes it file by file.
func (s *Store) removeComplete(ctx context.Context, f folder, out *Collected) error {
	dead := f.ref.String() + deadSuffix
	if err := s.fs.Rename(f.name, dead); err != nil {
		return fmt.Errorf("remove %s: %w", f.name, err)
	}
	s.setVerified(f.name, false)
	if err := s.fs.SyncDir("."); err != nil {
		return err
	}
	return s.removeTree(ctx, dead, out)
}

// removeTree deletes a directory of files.
func (s *Store) removeTree(ctx context.Context, name string, out *Collected) error {
	entries, err := s.fs.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.fs.Remove(name + "/" + e.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s/%s: %w", name, e.Name, err)
		}
	}
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	out.Removed = append(out.Removed, name)
	return nil
}
