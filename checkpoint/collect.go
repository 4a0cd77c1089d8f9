package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// CollectRequest says who collects and what stays.
type CollectRequest struct {
	// Epoch is the caller's epoch, the highest that has begun: a late process of an older one must not remove anything.
	Epoch uint64
	// Keep is how many complete checkpoints stay, at least 1. With 1, damage to that one loses all; 2 or more is advised.
	Keep int
	// Every, if not 0, keeps each checkpoint whose step is a multiple of it, beside the newest.
	Every uint64
	// Best keeps the best by a metric, beside the others.
	Best []Best
	// Now is the time by which leases have run out; the zero time lets none run out.
	Now time.Time
	// DryRun decides and removes nothing: Collected.Removed then names what would go. Half-written ones are left out.
	DryRun bool
}

// Collected says what Collect did.
type Collected struct {
	Kept    []Ref     // complete checkpoints that stay, the newest first; those in use, pinned, or referred to among them
	Removed []string  // names of the directories removed
	Skipped []Skipped // complete ones that do not verify
}

// Collect removes complete checkpoints beyond the newest Keep that verify, unless Every, Best, a pin or a lease keeps them, or one that stays refers to them; what is left of half-written ones of older
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
	for _, b := range r.Best {
		if b.Metric == "" || b.Count < 1 {
			return out, fmt.Errorf("%w: collect: keep the %d best by metric %q, want at least 1 by a name", ErrInvalid, b.Count, b.Metric)
		}
	}
	if err := s.current(ctx, r.Epoch, "collect"); err != nil {
		return out, err
	}
	found, dead, err := s.folders()
	if err != nil {
		return out, err
	}
	if r.DryRun {
		return out, s.collectComplete(ctx, r, found, &out)
	}
	for _, name := range dead { // a removal that a crash cut short
		if err := s.finishRemoval(ctx, name, r.Now, &out); err != nil {
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
	users, err := s.used()
	if err != nil {
		return err
	}
	for _, f := range found {
		over := f.ref.Epoch < r.Epoch || f.ref.Epoch == r.Epoch && f.ref.Compare(newest) < 0
		// One that is referred to was complete once: a power cut took its manifest, and not that of the one that refers to it.
		if f.complete || !over || stillUsed(users[f.ref], out) {
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
	complete := slices.DeleteFunc(slices.Clone(found), func(f folder) bool { return !f.complete })
	var old []folder
	var good []Manifest // of those in old
	newest := 0         // how many of the newest stay
	for _, f := range complete {
		if newest >= r.Keep && len(r.Best) == 0 {
			old, good = append(old, f), append(good, Manifest{Epoch: f.ref.Epoch, Step: f.ref.Step})
			continue
		}
		m, err := s.load(f.name)
		if err == nil && newest == 0 && len(complete) > r.Keep && !s.wasVerified(f.name) {
			err = s.Verify(ctx, m)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case err == nil && newest < r.Keep:
			newest++
			out.Kept = append(out.Kept, f.ref)
		case err == nil:
			old, good = append(old, f), append(good, m)
		default:
			if newest > 0 && damaged(err) {
				old, good = append(old, f), append(good, Manifest{Epoch: f.ref.Epoch, Step: f.ref.Step})
			}
			out.Skipped = append(out.Skipped, Skipped{Ref: f.ref, Dir: f.name, Err: err})
		}
	}
	if len(complete) <= r.Keep {
		return nil // nothing was read in full, and nothing needs to go
	}
	held, err := s.held(r.Now)
	if err != nil {
		return err
	}
	users, err := s.used()
	if err != nil {
		return err
	}
	keep := r.Retained(good)
	for i, f := range old { // the newest first, so that what refers to others goes before them
		if keep[i] || held[f.ref] != "" || stillUsed(users[f.ref], out) {
			out.Kept = append(out.Kept, f.ref)
			continue
		}
		if err := s.removeOld(ctx, r, f, out); err != nil {
			return err
		}
	}
	slices.SortFunc(out.Kept, func(a, b Ref) int { return b.Compare(a) })
	return nil
}

// stillUsed says whether one of the directories that refer to a checkpoint has not been removed.
func stillUsed(users []string, out *Collected) bool {
	return slices.ContainsFunc(users, func(user string) bool {
		base := strings.TrimSuffix(user, sealedSuffix)
		return !slices.Contains(out.Removed, user) && !slices.Contains(out.Removed, base) && !slices.Contains(out.Removed, base+sealedSuffix)
	})
}

// removeOld removes one complete checkpoint, or says that it would.
func (s *Store) removeOld(ctx context.Context, r CollectRequest, f folder, out *Collected) error {
	if r.DryRun {
		out.Removed = append(out.Removed, f.name)
		return nil
	}
	err := s.removeComplete(ctx, f, r.Now, out)
	if errors.Is(err, ErrInUse) {
		out.Kept = append(out.Kept, f.ref)
		return nil
	}
	return err
}

// Retained says which of the checkpoints beyond the newest ones Every and Best keep.
func (r CollectRequest) Retained(old []Manifest) []bool {
	keep := make([]bool, len(old))
	for i := range old {
		keep[i] = r.Every > 0 && old[i].Step%r.Every == 0
	}
	for _, b := range r.Best {
		var rank []int // of old, those with the metric, the best first
		for i := range old {
			if _, ok := old[i].Metrics[b.Metric]; ok {
				rank = append(rank, i)
			}
		}
		slices.SortStableFunc(rank, func(i, j int) int {
			c := cmp.Compare(old[j].Metrics[b.Metric], old[i].Metrics[b.Metric])
			if b.Lowest {
				return -c
			}
			return c
		})
		for _, i := range rank[:min(b.Count, len(rank))] {
			keep[i] = true
		}
	}
	return keep
}

// damaged says whether err is about the bytes themselves, not about reaching them.
func damaged(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}

// removeComplete takes a complete checkpoint out of sight in one step, then deletes it file by file. One that is pinned or
// in use by now stays: ErrInUse.
func (s *Store) removeComplete(ctx context.Context, f folder, now time.Time, out *Collected) error {
	dead := f.ref.String() + deadSuffix
	if err := s.fs.Rename(f.name, dead); err != nil {
		return fmt.Errorf("remove %s: %w", f.name, err)
	}
	// A reader notes its lease, then looks whether the checkpoint is there; this looks in the other order, so that one of
	// the two sees the other.
	why, err := s.whyHeld(f.ref, now)
	if err != nil || why != "" {
		if back := s.fs.Rename(dead, f.name); back != nil {
			return errors.Join(err, fmt.Errorf("put %s back: %w", f.name, back))
		}
		if err == nil {
			err = fmt.Errorf("remove %s: %s: %w", f.name, why, ErrInUse)
		}
		return err
	}
	s.setVerified(f.name, false)
	if err := s.fs.SyncDir("."); err != nil {
		return err
	}
	if err := s.deleteTree(ctx, dead, 0); err != nil {
		return err
	}
	out.Removed = append(out.Removed, f.name)
	return nil
}

// whyHeld says why a checkpoint can not be removed, "" if it can.
func (s *Store) whyHeld(ref Ref, now time.Time) (string, error) {
	held, err := s.held(now)
	if why := held[ref]; err != nil || why != "" {
		return why, err
	}
	user, err := s.userOf(ref)
	if err == nil && user != "" {
		user += " refers to it"
	}
	return user, err
}

// finishRemoval removes what a crash left of a removal, or puts it back if somebody came to hold it just before that: then not one
// of its files is gone yet.
func (s *Store) finishRemoval(ctx context.Context, dead string, now time.Time, out *Collected) error {
	base := strings.TrimSuffix(strings.TrimSuffix(dead, deadSuffix), sealedSuffix)
	if ref, err := ParseRef(base); err == nil {
		held, err := s.whyHeld(ref, now)
		if err != nil {
			return err
		}
		if _, err := s.load(dead); held != "" && !damaged(err) && !errors.Is(err, fs.ErrNotExist) {
			return s.fs.Rename(dead, ref.String())
		}
	}
	return s.removeTree(ctx, dead, out)
}

// removeTree deletes a directory and all that is in it, and notes it.
func (s *Store) removeTree(ctx context.Context, name string, out *Collected) error {
	if err := s.deleteTree(ctx, name, 0); err != nil {
		return err
	}
	out.Removed = append(out.Removed, name)
	return nil
}

func (s *Store) deleteTree(ctx context.Context, name string, depth int) error {
	entries, err := s.fs.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if depth > maxDepth {
		return fmt.Errorf("remove %s: more than %d directories deep: remove it by hand", name, maxDepth)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.IsDir {
			if err := s.deleteTree(ctx, name+"/"+e.Name, depth+1); err != nil {
				return err
			}
			continue
		}
		if err := s.fs.Remove(name + "/" + e.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s/%s: %w", name, e.Name, err)
		}
	}
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}
