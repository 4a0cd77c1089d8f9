package drain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// waitingFiles lists the checkpoints of files that nodes have on their own disks, as far as they are newer than the newest complete one.
func (s *Start) waitingFiles(ctx context.Context, store *checkpoint.Store) ([]checkpoint.Ref, error) {
	held, err := announced(s.Dir)
	if err != nil || len(held) == 0 {
		return nil, err
	}
	complete, err := store.List(ctx)
	if err != nil {
		return nil, err
	}
	s.held = held
	var refs []checkpoint.Ref
	for ref := range held { // any order: sorted by the caller
		if len(complete) == 0 || ref.Compare(complete[0]) > 0 {
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// completeFiles brings one checkpoint of files to the shared storage from this node or from whichever agent has it whole.
func (s *Start) completeFiles(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref) (checkpoint.Manifest, error) {
	for deadline := time.Now().Add(cmp.Or(s.Grace, settleGrace)); ; {
		m, err := s.bringFiles(ctx, store, ref)
		if err == nil || ctx.Err() != nil || errors.Is(err, checkpoint.ErrFenced) || time.Now().After(deadline) {
			return m, err
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return m, ctx.Err()
		}
	}
}

func (s *Start) bringFiles(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref) (checkpoint.Manifest, error) {
	if m, err := store.Load(ctx, ref); err == nil { // its own agent has been faster
		return m, nil
	}
	var errs []error
	if s.Own != nil {
		err := s.adoptFrom(ctx, store, ref, s.Own)
		if err == nil {
			return store.Load(ctx, ref)
		}
		errs = append(errs, err)
	}
	for _, node := range slices.Sorted(maps.Keys(s.held[ref])) {
		if node == s.Node || s.Fetch == nil {
			continue
		}
		err := s.adoptFrom(ctx, store, ref, func(file string) (Source, error) { return s.Fetch(ctx, s.held[ref][node], file) })
		if err == nil {
			return store.Load(ctx, ref)
		}
		errs = append(errs, fmt.Errorf("from the agent of %s: %w", node, err))
	}
	return checkpoint.Manifest{}, errors.Join(fmt.Errorf("%s: %w: no agent that can be asked has it whole", ref, checkpoint.ErrIncomplete), errors.Join(errs...))
}

// adoptFrom copies a checkpoint's files as they come. What is wrong with them is seen before they are committed.
func (s *Start) adoptFrom(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref, open func(file string) (Source, error)) error {
	prefix := filesPrefix + ref.String() + "/"
	var manifest []byte
	err := withSource(open, prefix+manifestFile, func(r io.Reader) (err error) {
		manifest, err = io.ReadAll(io.LimitReader(r, checkpoint.MaxManifestBytes+1))
		return err
	})
	if err != nil {
		return err
	}
	m, err := checkpoint.ParseManifest(manifest)
	if err == nil && m.Ref() != ref {
		err = fmt.Errorf("%w: it gave the manifest of %s", checkpoint.ErrInvalid, m.Ref())
	}
	if err != nil {
		return err
	}
	return adopt(ctx, store, s.Dir, settlePrefix+s.Node, manifest, func(to string) error {
		for _, f := range m.Files {
			err := withSource(open, prefix+f.Name, func(r io.Reader) error {
				return writeFile(filepath.Join(to, filepath.FromSlash(f.Name)), io.LimitReader(r, f.Bytes+1))
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// sweep removes what nodes that died have left of bringing files together; the epoch has begun, so that none of it can be adopted any more.
func (s *Start) sweep() {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return // the start itself will say so
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), drainPrefix) || strings.HasPrefix(e.Name(), settlePrefix) {
			_ = os.RemoveAll(filepath.Join(s.Dir, e.Name())) // the next start tries again
		}
	}
}

func withSource(open func(file string) (Source, error), file string, read func(io.Reader) error) error {
	src, err := open(file)
	if err != nil {
		return err
	}
	return errors.Join(read(io.NewSectionReader(src, 0, math.MaxInt64)), src.Close())
}
