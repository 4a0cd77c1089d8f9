package keeper

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// watch is the watch over one job.
type watch struct {
	keeper   *Keeper
	job      Job
	ended    chan struct{} // closed when the job's processes are gone
	reported chan struct{} // the worker has committed a checkpoint by itself

	// Guarded by Keeper.mu.
	over    bool // ended is closed
	endedAt time.Time
	late    *time.Timer
	busy    bool // a commit is under way
	done    bool // the last look is over

	// Of the watch's own goroutine.
	seen   map[string]time.Time // a directory's time at the last listing that found nothing
	failed map[string]time.Time // when a directory was last tried in vain
	keys   keyring
}

// run looks until the job has ended, and then once more.
func (w *watch) run(ctx context.Context) {
	defer w.keeper.wg.Done()
	var looks <-chan time.Time
	if w.job.Key.Rank == 0 {
		w.catchUp(ctx)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		looks = tick.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-looks:
			w.look(ctx, false)
		case <-w.reported:
			w.collect(ctx)
		case <-w.ended:
			w.finish(ctx)
			if w.job.Key.Rank == 0 {
				w.look(ctx, true)
			}
			w.finishOthers(ctx)
			if ctx.Err() != nil {
				return // the next agent has the last look
			}
			w.dropImages()
			w.set(func() {
				w.done = true
				if w.late != nil {
					w.late.Stop()
				}
			})
			w.keeper.cfg.Changed()
			select {
			case <-w.reported:
				w.collect(ctx) // nobody waits for it any more
			default:
			}
			return
		}
	}
}

// finishOthers waits for what others commit of the job.
func (w *watch) finishOthers(ctx context.Context) {
	if w.job.Ended == nil {
		return
	}
	w.set(func() { w.busy = true })
	defer w.set(func() { w.busy = false })
	ctx, cancel := context.WithTimeout(ctx, finishWithin)
	defer cancel()
	w.job.Ended(ctx)
}

func (w *watch) set(f func()) {
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	f()
}

// settleTime is how long a directory's time must lie back before it tells that nothing came since: file systems stamp in steps, and
// the clocks of servers differ.
const settleTime = 2 * time.Second

// look commits what is there to commit. The last one also takes up what a killed commit has left: nobody else can be at it any more.
func (w *watch) look(ctx context.Context, last bool) {
	w.lookIn(ctx, &w.job, last)
	if w.job.Local != "" {
		local := w.job
		local.Dir = w.job.Local
		w.lookIn(ctx, &local, last)
	}
}

// lookIn looks in one directory: j is the job, as if that were its only one.
func (w *watch) lookIn(ctx context.Context, j *Job, last bool) {
	info, err := os.Stat(j.Dir)
	if err != nil || !info.IsDir() {
		return // no directory, nothing to commit; the program's own writes fail loudly enough
	}
	if !last && info.ModTime().Equal(w.seen[j.Dir]) {
		return
	}
	entries, err := os.ReadDir(j.Dir)
	if err != nil {
		w.warn("a job's checkpoint directory cannot be listed", "err", err)
		return
	}
	found := false
	for _, e := range entries {
		if step, ok := Step(e.Name()); ok && e.IsDir() {
			found = true
			w.commit(ctx, j, e.Name(), step, last)
		}
	}
	if last {
		w.takeUp(ctx, j, entries)
	}
	if !found && time.Since(info.ModTime()) > settleTime {
		w.seen[j.Dir] = info.ModTime()
	}
}

// Step reads a name such as step-500, by which a program says that a directory is ready to be committed.
func Step(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, "step-")
	if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	step, err := strconv.ParseUint(digits, 10, 63)
	return step, err == nil
}

// catchUp tells of the newest checkpoint of this epoch that is there already, and of a newer one on nodes' own disks: the worker may have committed them while no agent
// was there to hear of it. When they were committed is told too, since the scheduler would otherwise believe that a stop loses little.
func (w *watch) catchUp(ctx context.Context) {
	newest := w.tell(w.newest(ctx, &w.job, false), checkpoint.Ref{})
	newest = w.tell(w.newest(ctx, &w.job, true), newest)
	if w.job.Local != "" {
		local := w.job
		local.Dir = w.job.Local
		w.tell(w.newest(ctx, &local, false), newest)
	}
}

// tell tells of a checkpoint that is newer than the newest of those that were told of, and gives the newest then. One that was committed at no stated time counts as committed now.
func (w *watch) tell(c *Commit, newest checkpoint.Ref) checkpoint.Ref {
	if c == nil {
		return newest
	}
	ref := checkpoint.Ref{Epoch: w.job.Key.Epoch, Step: c.Step}
	if ref.Compare(newest) <= 0 {
		return newest
	}
	w.keeper.cfg.Committed(*c)
	return ref
}

// newest gives the newest checkpoint of this epoch in a directory, or of those whose shards are on nodes' own disks; nil: there is none. What is wrong with one the next start says.
func (w *watch) newest(ctx context.Context, j *Job, local bool) *Commit {
	entries, err := os.ReadDir(j.Dir)
	if err != nil || !w.hasSteps(entries) {
		return nil // most jobs: it begins
	}
	store, err := j.open()
	if err != nil {
		return nil
	}
	list, load := store.List, store.Load
	if local {
		list, load = store.Undrained, store.LoadLocal
	}
	refs, err := list(ctx)
	if err != nil || len(refs) == 0 || refs[0].Epoch != w.job.Key.Epoch {
		return nil
	}
	m, err := load(ctx, refs[0])
	if err != nil {
		return nil
	}
	at := m.Saved()
	if info, err := os.Stat(filepath.Join(j.Dir, m.Ref().String())); at.IsZero() && err == nil {
		at = info.ModTime() // the last name that was put there is the manifest's
	}
	return &Commit{Key: w.job.Key, Step: m.Step, Path: filepath.Join(j.Dir, m.Ref().String()), Bytes: m.Bytes(), SavedAt: at}
}

// hasSteps says whether a listing has anything of this epoch.
func (w *watch) hasSteps(entries []os.DirEntry) bool {
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		ref, err := checkpoint.ParseRef(e.Name())
		return err == nil && ref.Epoch == w.job.Key.Epoch
	})
}

// takeUp ends commits that were cut short in this epoch.
func (w *watch) takeUp(ctx context.Context, j *Job, entries []os.DirEntry) {
	if !w.hasSteps(entries) {
		return // most jobs: no store need be opened
	}
	store, err := j.open()
	if err != nil {
		return
	}
	steps, err := store.HalfFiles(ctx, w.job.Key.Epoch)
	if err != nil {
		w.warn("what a killed commit left cannot be looked for", "err", err)
	}
	for _, step := range steps {
		w.commit(ctx, j, fmt.Sprintf("step-%d", step), step, true)
	}
}

// commit makes a checkpoint of one directory, tells of it, and removes older ones.
func (w *watch) commit(ctx context.Context, j *Job, from string, step uint64, last bool) {
	if time.Since(w.failed[j.Dir+"/"+from]) < retryAfter && !last {
		return
	}
	w.set(func() { w.busy = true })
	defer w.set(func() { w.busy = false })
	store, err := j.openWithKeys(ctx, &w.keys)
	if err == nil {
		err = store.Fence(ctx, w.job.Key.Epoch)
	}
	if err == nil {
		err = w.keeper.cfg.Admit(ctx, w.job.Key, checkpoint.TreeBytes(filepath.Join(j.Dir, from)))
	}
	var m checkpoint.Manifest
	if err == nil {
		m, err = store.CommitFiles(ctx, checkpoint.FilesCommit{Epoch: w.job.Key.Epoch, Step: step, From: from, SavedAt: w.keeper.cfg.Clock(), Metrics: w.metrics()})
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		w.warn("files that a program has saved are not a checkpoint yet", "dir", from, "err", err)
		w.failed[j.Dir+"/"+from] = time.Now()
		w.keeper.cfg.Problem(w.job.Key, fmt.Sprintf("%s is no checkpoint yet: %v", from, err))
		return
	}
	w.keeper.cfg.Problem(w.job.Key, "")
	path := filepath.Join(j.Dir, m.Dir)
	w.keeper.cfg.Log.Info("checkpoint committed", w.args("step", step, "path", path, "bytes", m.Bytes(), "files", len(m.Files))...)
	w.keeper.cfg.Committed(Commit{Key: w.job.Key, Step: step, Path: path, Bytes: m.Bytes()})
	w.collect(ctx)
}

func (w *watch) warn(msg string, args ...any) { w.keeper.cfg.Log.Warn(msg, w.args(args...)...) }

func (w *watch) args(more ...any) []any {
	return append([]any{"job", w.job.Key.Job, "epoch", w.job.Key.Epoch}, more...)
}

// open opens the job's checkpoints. The directory is there.
func (j *Job) open() (*checkpoint.Store, error) {
	cfg, err := j.config()
	if err != nil {
		return nil, err
	}
	return checkpoint.Open(cfg)
}

func (j *Job) config() (checkpoint.Config, error) {
	dir, err := checkpoint.NewDir(j.Dir)
	if err != nil {
		return checkpoint.Config{}, err
	}
	name, err := checkpoint.JobOf(dir)
	if err != nil && !errors.Is(err, checkpoint.ErrNone) && !errors.Is(err, fs.ErrNotExist) {
		return checkpoint.Config{}, err
	}
	if name == "" {
		name = j.Name
	}
	return checkpoint.Config{FS: dir, Job: name}, nil
}
