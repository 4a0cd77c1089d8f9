package drain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// completeParts brings the parts of one checkpoint together: each from this node, from the one that wrote it, or from the one that has its copy, whichever answers.
func (s *Start) completeParts(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref) (checkpoint.Manifest, error) {
	var deadline time.Time
	last := -1
	for {
		m, missing, err := store.SettleParts(ctx, ref)
		if err == nil || len(missing) == 0 || ctx.Err() != nil {
			return m, err
		}
		if missing[0] != last { // progress
			last, deadline = missing[0], time.Now().Add(cmp.Or(s.Grace, settleGrace))
		}
		bad := s.bringPart(ctx, store, ref, missing[0])
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
		if bad == nil {
			continue
		}
		if time.Now().After(deadline) {
			return m, errors.Join(err, bad)
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return m, ctx.Err()
		}
	}
}

// bringPart copies what lacks of one node's part to the shared storage.
func (s *Start) bringPart(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref, index int) error {
	parts, err := store.LookAtParts(ctx, ref)
	if err != nil {
		return err
	}
	dir := checkpoint.PartDir(ref, index, parts.Count)
	var errs []error
	try := func(open func(name string) (Source, error)) bool {
		err := store.DrainPart(ctx, ref, index, func(name string) (io.ReaderAt, io.Closer, error) {
			src, err := open(partsPrefix + dir + "/" + name)
			if err != nil {
				return nil, nil, err
			}
			return io.NewSectionReader(src, 0, math.MaxInt64), src, nil
		}, nil)
		if err != nil {
			errs = append(errs, err)
		}
		return err == nil
	}
	home := filepath.Join(s.Dir, fmt.Sprintf("%s%04d-of-%04d", homePrefix, index, parts.Count), dir)
	if _, err := os.Stat(home); err == nil && store.DrainPart(ctx, ref, index, openIn(home), nil) == nil {
		return nil // the node had no room, and has written to the shared storage itself
	}
	if s.Own != nil && try(s.Own) {
		return nil
	}
	holders, err := store.PartHolders(ref, index, parts.Count)
	if err != nil {
		return err
	}
	for _, node := range slices.Sorted(maps.Keys(holders)) {
		if node != s.Node && s.Fetch != nil && try(func(file string) (Source, error) { return s.Fetch(ctx, holders[node], file) }) {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("part %d of %s: %w: no agent that can be asked has all of it", index, ref, checkpoint.ErrIncomplete), errors.Join(errs...))
}

// sweepParts removes what is left of parts of epochs that are over.
func (s *Start) sweepParts(ctx context.Context, store *checkpoint.Store) {
	if err := store.SweepParts(ctx, checkpoint.Ref{Epoch: s.Epoch}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Log.Warn("notes of checkpoints of earlier epochs are not removed", append(s.Args, "err", err)...)
	}
	homes, err := filepath.Glob(filepath.Join(s.Dir, homePrefix+"*-of-*"))
	if err != nil {
		return // the pattern is bad: no directory is called so
	}
	for _, home := range homes { // of nodes that had no room
		for _, h := range partsIn(home, heldPart{}) {
			if h.ref.Epoch < s.Epoch {
				_ = os.RemoveAll(h.path) // the next start tries again
			}
		}
	}
}
