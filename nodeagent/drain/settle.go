package drain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// settlePoll is how often a start looks whether shards have come, or the node that sees to it has begun the epoch.
	settlePoll = 200 * time.Millisecond
	// settleGrace is Start.Grace by default.
	settleGrace = 10 * time.Second
)

// Start is a job's start as Settle needs to know it.
type Start struct {
	Dir   string // the job's directory on the shared storage
	Epoch uint64 // that is about to begin
	First bool   // on one node of the gang
	// Node names this one. Own opens a shard on its disk; Fetch opens one at another agent's address. Either may be nil.
	Node  string
	Own   func(file string) (Source, error)
	Fetch func(ctx context.Context, address, file string) (Source, error)
	// Grace is how long it waits without any progress for a shard that nobody has; 0: 10 s, in which an agent that restarts is back.
	Grace time.Duration
	Log   *slog.Logger
	Args  []any // for each line of the log

	held  map[checkpoint.Ref]map[string]string // checkpoints of files that nodes have, by whom
	parts []checkpoint.Ref                     // checkpoints of files of several nodes
}

// Source is a shard that is read from its beginning to its end.
type Source interface {
	io.ReaderAt
	io.Closer
}

// Settled says what became of a job's local checkpoints.
type Settled struct {
	// Path is of the checkpoint that was completed; "": there was none to complete, or another node saw to it.
	Path string
	// Lost is the newest that could not be; the zero Ref: none.
	Lost checkpoint.Ref
}

// Settle completes, before a job's next epoch begins, the newest checkpoint that its ranks have saved on their nodes' own disks: each
// shard from this node, from the node that wrote it, or from the one that keeps its copy, verified. Where one cannot be had the step
// before is tried, and the log says loudly what is lost. Then it begins the epoch, so that nothing older comes after. One node of the
// gang does so, the others wait for it. Errors:
// checkpoint.ErrFenced, the context's, the file system's; then the job must not start.
func Settle(ctx context.Context, s Start) (Settled, error) {
	var out Settled
	name, err := nameOf(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	var store *checkpoint.Store
	if err == nil {
		store, err = openStore(s.Dir, cmp.Or(name, filepath.Base(s.Dir)))
	}
	if err != nil {
		return out, fmt.Errorf("look for checkpoints on nodes' own disks: %w", err)
	}
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for {
		waiting, err := s.waiting(ctx, store)
		if err != nil || len(waiting) == 0 {
			return out, err
		}
		if s.First {
			if out, err = s.complete(ctx, store, waiting); err != nil {
				return out, err
			}
			if err := store.Fence(ctx, s.Epoch); err != nil {
				return out, err
			}
			s.sweep()
			s.sweepParts(ctx, store)
			return out, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return out, ctx.Err()
		}
	}
}

// waiting lists the steps of older epochs that are not on the shared storage, the newest first; none once the epoch has begun.
func (s *Start) waiting(ctx context.Context, store *checkpoint.Store) ([]checkpoint.Ref, error) {
	refs, err := store.Undrained(ctx)
	if err != nil {
		return nil, err
	}
	files, err := s.waitingFiles(ctx, store)
	if err == nil {
		s.parts, err = store.WaitingParts(ctx)
	}
	if refs = slices.Concat(refs, files, s.parts); err != nil || len(refs) == 0 {
		return nil, err
	}
	slices.SortFunc(refs, func(a, b checkpoint.Ref) int { return b.Compare(a) })
	var older []checkpoint.Ref
	for _, ref := range refs {
		if ref.Epoch < s.Epoch {
			older = append(older, ref)
		}
	}
	if begun, err := store.Epoch(ctx); err != nil || begun >= s.Epoch {
		return nil, err
	}
	return older, nil
}

// complete tries one step after the other.
func (s *Start) complete(ctx context.Context, store *checkpoint.Store, waiting []checkpoint.Ref) (out Settled, err error) {
	for _, ref := range waiting {
		one := s.completeOne
		if s.held[ref] != nil {
			one = s.completeFiles
		} else if slices.Contains(s.parts, ref) {
			one = s.completeParts
		}
		m, err := one(ctx, store, ref)
		var damage *checkpoint.CorruptError
		switch {
		case err == nil:
			s.Log.Info("checkpoint that was on nodes' own disks is complete", append(s.Args, "checkpoint", ref, "bytes", m.Bytes())...)
			out.Path = filepath.Join(s.Dir, m.Dir)
			dropNotes(s.Dir, ref)
			return out, nil
		case ctx.Err() != nil:
			return out, ctx.Err()
		case errors.As(err, &damage): // as bad as lost
		case !errors.Is(err, checkpoint.ErrIncomplete) || errors.Is(err, checkpoint.ErrFenced):
			return out, fmt.Errorf("complete %s from nodes' own disks: %w", ref, err)
		}
		if out.Lost.Compare(ref) < 0 {
			out.Lost = ref
		}
		s.Log.Error("a checkpoint is lost with the node that had a part of it, an older one is taken: the work since then is repeated",
			append(s.Args, "checkpoint", ref, "err", err)...)
	}
	return out, nil
}

// completeOne brings one step's shards together, until there is none left that anybody has.
func (s *Start) completeOne(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref) (checkpoint.Manifest, error) {
	deadline := time.Time{}
	last, grace := -1, cmp.Or(s.Grace, settleGrace) // how many were missing
	for {
		m, missing, err := store.Settle(ctx, ref)
		if err == nil || !errors.Is(err, checkpoint.ErrIncomplete) || len(missing) == 0 {
			return m, err
		}
		if last < 0 || len(missing) < last {
			last, deadline = len(missing), time.Now().Add(grace)
		}
		var errs []error
		for _, file := range missing {
			errs = append(errs, s.bring(ctx, store, ref, file))
		}
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
		if bad := errors.Join(errs...); bad != nil {
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
}

// bring copies one shard to the shared storage from whoever has it.
func (s *Start) bring(ctx context.Context, store *checkpoint.Store, ref checkpoint.Ref, file string) error {
	shard, err := store.LocalShard(ctx, ref, file)
	if err != nil || shard.State != checkpoint.ShardWaiting {
		return err
	}
	name := shard.File()
	var errs []error
	try := func(src Source, err error) bool {
		if err == nil {
			err = errors.Join(store.Drain(ctx, shard, src, nil), src.Close())
		}
		if err != nil {
			errs = append(errs, err)
		}
		return err == nil
	}
	if s.Own != nil {
		if src, err := s.Own(name); !errors.Is(err, fs.ErrNotExist) && try(src, err) {
			return nil
		}
	}
	holders, err := store.Holders(ref, file)
	if err != nil {
		return err
	}
	for node, address := range holders { // any order: each has the same bytes
		if node != s.Node && s.Fetch != nil && try(s.Fetch(ctx, address, name)) {
			return nil
		}
	}
	if len(errs) == 0 {
		return fmt.Errorf("%s: %w: no agent that can be asked has it", name, checkpoint.ErrIncomplete)
	}
	return errors.Join(errs...)
}

// Own opens a shard on the node's own disk, of this node's ranks or of another one's.
func (d *Drainer) Own(job uint64, file string) (Source, error) {
	if strings.HasPrefix(file, filesPrefix) {
		return d.ownFile(job, file)
	}
	if strings.HasPrefix(file, wholePrefix) {
		return d.ownWhole(job, file)
	}
	if strings.HasPrefix(file, partsPrefix) {
		return d.ownPart(job, file)
	}
	if !validFile(file) {
		return nil, fmt.Errorf("%w: %q is no shard of a checkpoint", checkpoint.ErrInvalid, file)
	}
	var err error
	for _, kind := range []string{ownDir, copiesDir} {
		var f *os.File
		if f, err = os.Open(filepath.Join(d.cfg.Root, kind, jobName(job), filepath.FromSlash(file))); err == nil {
			return f, nil
		}
	}
	return nil, err
}

// ownFile opens a file of a whole checkpoint of files.
func (d *Drainer) ownFile(job uint64, file string) (Source, error) {
	ref, name, err := splitFiles(file)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{d.FilesDir(job), d.FileCopiesDir(job)} {
		at := filepath.Join(dir, ref.String())
		if _, err = os.Stat(filepath.Join(at, manifestFile)); err != nil {
			continue
		}
		var f *os.File
		if f, err = os.Open(filepath.Join(at, filepath.FromSlash(name))); err == nil {
			return f, nil
		}
	}
	return nil, err
}

// openStore opens a job's checkpoints in a directory that must be there.
func openStore(path, name string) (*checkpoint.Store, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		return nil, err
	}
	return checkpoint.Open(checkpoint.Config{FS: dir, Job: name})
}

// nameOf gives the name by which the checkpoints in a directory know their job; "": there are none yet.
func nameOf(path string) (string, error) {
	if _, err := os.Stat(path); err != nil {
		return "", err
	}
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		return "", err
	}
	name, err := checkpoint.JobOf(dir)
	if errors.Is(err, checkpoint.ErrNone) {
		return "", nil
	}
	return name, err
}

// NewSource gives a stream as a Source.
func NewSource(r io.Reader, closing func() error) Source {
	return &stream{ReaderAt: checkpoint.InOrder(r), closing: closing}
}

type stream struct {
	io.ReaderAt
	closing func() error
}

// Close ends the stream.
func (s *stream) Close() error { return s.closing() }

// Copied says whether each shard of a local checkpoint is on two nodes at least, or on the shared storage.
func (d *Drainer) Copied(job uint64, dir string) bool {
	ref, err := checkpoint.ParseRef(filepath.Base(dir))
	if err != nil {
		return false
	}
	store, err := d.store(job)
	if err != nil {
		return false
	}
	if held, err := announced(filepath.Dir(dir)); err == nil && held[ref] != nil {
		return len(held[ref]) > 1
	}
	if parts, err := store.LookAtParts(context.Background(), ref); err == nil && parts.Joined {
		ok, err := store.PartsCopied(parts)
		return err == nil && ok
	}
	ok, err := store.Copied(ref)
	return err == nil && ok
}
