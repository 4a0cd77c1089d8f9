package usage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// maxKnown bounds what a Meter remembers of sizes: far more than a user keeps.
const maxKnown = 100_000

// Use is what a user's checkpoints take.
type Use struct {
	Bytes       int64 // of complete ones, in full; what several share counts once
	Checkpoints int
	Jobs        int // that have any
	Unreadable  int // complete ones whose manifest cannot be used; their size is not known
}

// Removed is a checkpoint that was removed to make room.
type Removed struct {
	Job   string
	Ref   checkpoint.Ref
	Bytes int64
}

// Meter measures and makes room below one root. It remembers sizes, since a checkpoint never changes. Its methods may be called concurrently; one at a time works.
type Meter struct {
	root string

	mu    sync.Mutex
	known map[string]item // by path
	good  map[string]bool // paths of newest checkpoints that were read in full
}

// item is one complete checkpoint.
type item struct {
	job    string
	ref    checkpoint.Ref
	bytes  int64
	saved  int64 // Unix milliseconds; 0: not told
	newest bool  // of its job
	bad    bool
}

// New gives a meter of a storage.
func New(root string) *Meter {
	return &Meter{root: root, known: map[string]item{}, good: map[string]bool{}}
}

// Of measures what a user's checkpoints take.
func (m *Meter) Of(ctx context.Context, user string) (Use, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items, err := m.items(ctx, user)
	return sum(items), err
}

func sum(items []item) Use {
	var u Use
	jobs := map[string]bool{}
	for _, it := range items {
		jobs[it.job] = true
		u.Bytes += it.bytes
		u.Checkpoints++
		if it.bad {
			u.Unreadable++
		}
	}
	u.Jobs = len(jobs)
	return u
}

// Request says for what room is to be made.
type Request struct {
	User  string
	Limit int64 // bytes that the user's checkpoints may take
	// Job and Bytes are of a checkpoint that is about to be committed; 0 bytes: there is none. Then the newest of that job is no longer the newest: it counts as
	// gone, though it goes only after the commit, with another MakeRoom. Until then the two are there.
	Job   string
	Bytes int64
	Now   time.Time // by which leases have run out
}

// Made says what MakeRoom did.
type Made struct {
	Removed []Removed
	Left    Use
	Fits    bool // within the limit, with what is about to be committed
}

// MakeRoom removes a user's oldest checkpoints, of all the user's jobs, until the limit holds. The newest of each job stays, and what is pinned, being read, or referred
// to by another; of a job whose newest one does not verify, all stay. On an error it has done part of it.
func (m *Meter) MakeRoom(ctx context.Context, r Request) (Made, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items, err := m.items(ctx, r.User)
	if err != nil {
		return Made{Left: sum(items)}, err
	}
	// By the time of the save; the steps of two jobs say nothing about each other. One that does not tell is the oldest.
	order := slices.Clone(items)
	slices.SortStableFunc(order, func(a, b item) int { return cmp.Or(cmp.Compare(a.saved, b.saved), a.ref.Compare(b.ref)) })
	var out Made
	gone := map[string]bool{}
	after := sum(items).Bytes + r.Bytes // what there is after the commit
	for _, it := range items {
		if r.Bytes > 0 && it.newest && it.job == r.Job {
			after -= it.bytes
		}
	}
	for _, it := range order {
		if after <= r.Limit {
			break
		}
		var ok bool
		if ok, err = m.remove(ctx, it, r.Now); err != nil {
			break
		}
		if ok {
			gone[it.path()] = true
			after -= it.bytes
			out.Removed = append(out.Removed, Removed{Job: it.job, Ref: it.ref, Bytes: it.bytes})
		}
	}
	out.Left, out.Fits = sum(rest(items, gone)), after <= r.Limit
	return out, err
}

func rest(items []item, gone map[string]bool) []item {
	return slices.DeleteFunc(slices.Clone(items), func(it item) bool { return gone[it.path()] })
}

func (it *item) path() string { return it.job + "/" + it.ref.String() }

// remove removes one checkpoint, if it may go.
func (m *Meter) remove(ctx context.Context, it item, now time.Time) (bool, error) {
	if it.newest || it.bad {
		return false, nil
	}
	store, err := m.open(it.job)
	if err != nil {
		return false, err
	}
	if ok, err := m.newestIsGood(ctx, it.job, store); err != nil || !ok {
		return false, err
	}
	switch err := store.Remove(ctx, checkpoint.RemoveRequest{Ref: it.ref, Now: now}); {
	case err == nil, errors.Is(err, checkpoint.ErrNone), errors.Is(err, fs.ErrNotExist): // somebody else was faster
		delete(m.known, it.path())
		return true, nil
	case errors.Is(err, checkpoint.ErrInUse), errors.Is(err, checkpoint.ErrNewest):
		return false, nil
	default:
		return false, fmt.Errorf("make room: %w", err)
	}
}

// newestIsGood reads what the job would resume from, once.
func (m *Meter) newestIsGood(ctx context.Context, job string, store *checkpoint.Store) (bool, error) {
	refs, err := store.List(ctx)
	if err != nil || len(refs) == 0 {
		return false, err
	}
	path := job + "/" + refs[0].String()
	if m.good[path] {
		return true, nil
	}
	manifest, err := store.Load(ctx, refs[0])
	if err == nil {
		err = store.Verify(ctx, manifest)
	}
	var bad *checkpoint.CorruptError
	switch {
	case errors.As(err, &bad), errors.Is(err, checkpoint.ErrNone):
		return false, nil
	case err != nil:
		return false, err
	}
	if len(m.good) >= maxKnown {
		clear(m.good)
	}
	m.good[path] = true
	return true, nil
}

func (m *Meter) open(job string) (*checkpoint.Store, error) {
	dir, err := checkpoint.NewDir(filepath.Join(m.root, job))
	if err != nil {
		return nil, err
	}
	name, err := checkpoint.JobOf(dir)
	if err != nil {
		return nil, err
	}
	return checkpoint.Open(checkpoint.Config{FS: dir, Job: name})
}

// items lists a user's complete checkpoints. Directories that vanish meanwhile are left out.
func (m *Meter) items(ctx context.Context, user string) ([]item, error) {
	jobs, err := jobsOf(m.root, user)
	if err != nil {
		return nil, err
	}
	if len(m.known) >= maxKnown {
		clear(m.known)
	}
	var out []item
	for _, job := range jobs {
		store, err := m.open(job)
		if errors.Is(err, checkpoint.ErrNone) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var refs []checkpoint.Ref
		if err == nil {
			refs, err = store.List(ctx)
		}
		if err != nil {
			return out, fmt.Errorf("measure the checkpoints of %s: %w", job, err)
		}
		for i, ref := range refs {
			it := item{job: job, ref: ref}
			if old, ok := m.known[it.path()]; ok {
				it = old
			} else {
				manifest, err := store.Load(ctx, ref)
				if ctx.Err() != nil {
					return out, ctx.Err()
				}
				it.bad = err != nil
				if err == nil {
					it.bytes, it.saved = manifest.Bytes(), manifest.SavedMS
					m.known[it.path()] = it
				}
			}
			it.newest = i == 0
			out = append(out, it)
		}
	}
	return out, nil
}
