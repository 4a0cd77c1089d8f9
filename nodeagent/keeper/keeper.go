package keeper

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/reconcile"
)

const (
	// lookEvery is how often a job's directory is looked at: one stat, and a listing only if it changed.
	lookEvery = time.Second
	// lastLook bounds how long the end of a worker waits for a look at storage that hangs; lastCommit, for a commit that
	// is under way. Then the end is told all the same, and what was not committed stays where it is.
	lastLook   = 10 * time.Second
	lastCommit = 10 * time.Minute
	// retryAfter is the wait after a commit that failed, such as on a full disk.
	retryAfter = 5 * time.Second
)

// Job is one worker's job whose checkpoints are looked after, in one epoch. The job's directory is looked at for rank 0 alone.
type Job struct {
	Key    reconcile.Key
	Dir    string    // the job's checkpoint directory
	Local  string    // its directory on the node's own disk for a program's own files, which may not be there; "": none
	Name   string    // by which its checkpoints know it
	Stay   Retention // which stay
	Images string    // this worker's directory of images in shared memory, which goes with it; "": none
	// Environ gives the worker's environment, which says how checkpoints are stored: an image is finished as the worker would have
	// written it, encrypted with its key; and its working directory. It may read a file. Nil: nothing is said.
	Environ func() (env []string, dir string)
	// Ended is called when the worker's processes are gone, before its end is told, for what others commit of the job; nil: nobody does.
	Ended func(ctx context.Context)
	// Near is where Resume puts what a start begins from; nil: nowhere but in Dir.
	Near *Near
}

// Retention is which of a job's checkpoints stay, as checkpoint.CollectRequest has it.
type Retention struct {
	Keep  int    // the newest; 0: all
	Every uint64 // those whose step is a multiple of it; 0: none for that
	Best  []checkpoint.Best
}

// Commit is a checkpoint that was committed.
type Commit struct {
	Key   reconcile.Key
	Step  uint64
	Path  string
	Bytes int64
	// SavedAt is when that was, by the clock of who committed it; the zero time: now.
	SavedAt time.Time
}

// Config is what a Keeper works with. All but Log are required.
type Config struct {
	// Committed takes each commit. It may be called from several goroutines.
	Committed func(Commit)
	// Changed is called when an answer of Settled may have changed.
	Changed func()
	// Metrics gives what a worker last said of its training, for checkpoints that the keeper commits; nil: nothing is known.
	Metrics func(reconcile.Key) map[string]float64
	// Admit makes room for a checkpoint of so many bytes, and says why it may not be committed; nil: all may.
	Admit func(ctx context.Context, key reconcile.Key, bytes int64) error
	// Problem takes why what a job has saved is no checkpoint yet, and "" when it is; nil: nobody is told.
	Problem func(key reconcile.Key, text string)
	// Clock stamps commits.
	Clock func() time.Time
	Log   *slog.Logger
}

// Keeper watches the directories of jobs that run. Its methods may be called concurrently.
type Keeper struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // the life of the watches
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	closed  bool // nobody asks any more
	watches map[reconcile.Key]*watch
}

// New gives a keeper that watches nothing. Close ends it.
func New(cfg Config) *Keeper {
	if cfg.Metrics == nil {
		cfg.Metrics = func(reconcile.Key) map[string]float64 { return nil }
	}
	if cfg.Admit == nil {
		cfg.Admit = func(context.Context, reconcile.Key, int64) error { return nil }
	}
	if cfg.Problem == nil {
		cfg.Problem = func(reconcile.Key, string) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Keeper{cfg: cfg, watches: map[reconcile.Key]*watch{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// Close ends all watches and waits for them. What they have begun the next agent goes on with.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	for _, w := range k.watches {
		if w.late != nil {
			w.late.Stop()
		}
	}
	k.mu.Unlock()
	k.cancel()
	k.wg.Wait()
}

// Watch looks after a job from now on; ended says that its processes are gone, so that one last look is left. Watching twice is no error.
func (k *Keeper) Watch(job Job, ended bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.watches[job.Key]
	if w == nil {
		w = &watch{keeper: k, job: job, ended: make(chan struct{}), reported: make(chan struct{}, 1), failed: map[string]time.Time{}, seen: map[string]time.Time{}}
		k.watches[job.Key] = w
		k.wg.Add(1)
		go w.run(k.ctx)
	}
	if ended && !w.over {
		w.over, w.endedAt = true, time.Now()
		close(w.ended)
		w.late = time.AfterFunc(lastLook+time.Second, func() { k.ask(w) })
	}
}

// Reported says that a worker has committed a checkpoint by itself: older ones are removed then. It does not block. A worker that is not watched is left out.
func (k *Keeper) Reported(key reconcile.Key) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.watches[key]; w != nil {
		select {
		case w.reported <- struct{}{}:
		default: // it has not got to the last one yet
		}
	}
}

// Settled says whether all that a worker's end has to wait for is done, or has taken too long. False for one that is not watched yet.
func (k *Keeper) Settled(key reconcile.Key) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := k.watches[key]
	switch {
	case w == nil || !w.over:
		return false
	case w.done:
		return true
	}
	limit := lastLook
	if w.busy {
		limit = lastCommit
	}
	return time.Since(w.endedAt) > limit
}

// ask has Settled asked again, now and then until the last look is over: it may never be.
func (k *Keeper) ask(w *watch) {
	k.cfg.Changed()
	w.set(func() {
		if !w.done && !k.closed && k.watches[w.job.Key] == w { // else it would be asked for ever
			w.late.Reset(lastLook)
		}
	})
}

// Forget drops all jobs but those that keep names. Their watches end.
func (k *Keeper) Forget(keep func(reconcile.Key) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, w := range k.watches {
		if !keep(key) {
			if !w.over {
				w.over, w.endedAt = true, time.Now()
				close(w.ended)
			}
			if w.late != nil {
				w.late.Stop()
			}
			delete(k.watches, key)
		}
	}
}
