package pusher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/nodeagent/reconcile"
)

const (
	// atOnce is how many jobs' checkpoints are copied at the same time. Each has several parts under way.
	atOnce = 2
	// tries bounds the attempts at one checkpoint: with the waits below about half an hour. Then the job's next one is its chance.
	tries    = 12
	firstGap = time.Second
	maxGap   = 5 * time.Minute
	// leaseFor is how long a checkpoint is kept from being removed while one attempt reads it.
	leaseFor = 6 * time.Hour
)

// Job is whose checkpoints are copied.
type Job struct {
	Key  reconcile.Key `json:"key"`
	Dir  string        `json:"dir"`  // its checkpoint directory
	Name string        `json:"name"` // by which its checkpoints know it
	Stay Stay          `json:"stay"` // which of its copies stay
}

// Stay is which of a job's copies stay, as checkpoint.CollectRequest has it.
type Stay struct {
	Keep  int               `json:"keep,omitempty"` // the newest; 0: all
	Every uint64            `json:"every,omitempty"`
	Best  []checkpoint.Best `json:"best,omitempty"`
}

// Copy is a checkpoint that has been copied.
type Copy struct {
	Job     Job
	Ref     checkpoint.Ref
	Address string // s3://bucket/prefix/JOB/CHECKPOINT
	Bytes   int64
}

// Config is what a Pusher works with.
type Config struct {
	Bucket  remote.Bucket // required
	Address string        // of the bucket and the prefix below which jobs lie, for people
	// StateDir keeps what is still to be copied, across restarts. Required; it is made.
	StateDir string
	// Pushed takes each copy. It may be called from several goroutines. Nil: nobody is told.
	Pushed func(Copy)
	// Counted takes each attempt, for metrics: its bytes, and whether it worked. Nil: nobody counts.
	Counted func(bytes int64, ok bool)
	// Sleep waits; false when ctx ended first. Nil: a timer. Tests do not wait.
	Sleep func(ctx context.Context, d time.Duration) bool
	Clock func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: nobody reads it
}

// Pusher copies. Its methods may be called concurrently.
type Pusher struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // the life of the copies
	cancel context.CancelFunc
	wg     sync.WaitGroup
	slots  chan struct{}

	mu   sync.Mutex
	jobs map[uint64]*queue
}

// queue is what is to be done for one job: at most one checkpoint is copied, and one more is waited for, the newest.
type queue struct {
	job     Job
	commits int  // since the last that was due
	running bool // a goroutine is at it
	again   bool // another one became due meanwhile
}

// New gives a pusher that goes on with what a former one had not done. Close ends it.
func New(cfg Config) (*Pusher, error) {
	if cfg.Pushed == nil {
		cfg.Pushed = func(Copy) {}
	}
	if cfg.Counted == nil {
		cfg.Counted = func(int64, bool) {}
	}
	if cfg.Sleep == nil {
		cfg.Sleep = sleep
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("keep what is to be copied to %s: %w", cfg.Address, err)
	}
	p := &Pusher{cfg: cfg, slots: make(chan struct{}, atOnce), jobs: map[uint64]*queue{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for _, job := range p.left() {
		p.due(job)
	}
	return p, nil
}

// Close ends all copies and waits for them. What is cut short the next pusher does again.
func (p *Pusher) Close() {
	p.mu.Lock() // so that no copy begins once the wait has
	p.cancel()
	p.mu.Unlock()
	p.wg.Wait()
}

// Committed says that a job has committed a checkpoint; the first that is told of, and each nth after it, is copied. A checkpoint that is due while
// another one of the job is copied waits; of several only the newest is copied.
func (p *Pusher) Committed(job Job, nth int) {
	if nth < 1 {
		return
	}
	p.mu.Lock()
	q := p.jobs[job.Key.Job]
	if q == nil {
		q = &queue{job: job, commits: nth - 1}
		p.jobs[job.Key.Job] = q
	}
	q.commits++
	is := q.commits >= nth
	if is {
		q.commits = 0
	}
	p.mu.Unlock()
	if is {
		p.due(job)
	}
}

// due has the job's newest checkpoint copied.
func (p *Pusher) due(job Job) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.jobs[job.Key.Job]
	if q == nil {
		q = &queue{}
		p.jobs[job.Key.Job] = q
	}
	q.job, q.again = job, true
	p.keep(job)
	if !q.running && p.ctx.Err() == nil {
		q.running = true
		p.wg.Add(1)
		go p.run(q)
	}
}

// next gives what the queue is to copy now; false: nothing, and its goroutine ends.
func (p *Pusher) next(q *queue) (Job, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !q.again || p.ctx.Err() != nil {
		q.running = false
		return Job{}, false
	}
	q.again = false
	return q.job, true
}

// run copies until nothing of the job is due.
func (p *Pusher) run(q *queue) {
	defer p.wg.Done()
	for job, ok := p.next(q); ok; job, ok = p.next(q) {
		if p.insist(q, job) {
			p.mu.Lock()
			if !q.again {
				p.forget(job)
			}
			p.mu.Unlock()
		}
	}
}

// insist tries until the copy is made, there is nothing to copy, or it has tried long enough: true. False: the pusher ends.
func (p *Pusher) insist(q *queue, job Job) bool {
	gap := firstGap
	for try := 1; ; try++ {
		select {
		case p.slots <- struct{}{}:
		case <-p.ctx.Done():
			return false
		}
		made, err := p.push(job)
		<-p.slots
		log := p.cfg.Log.With("job", job.Key.Job, "epoch", job.Key.Epoch)
		switch {
		case p.ctx.Err() != nil:
			return false
		case err == nil:
			if made.Address != "" {
				log.Info("checkpoint is copied to the object store", "checkpoint", made.Ref, "address", made.Address, "bytes", made.Bytes)
				p.cfg.Pushed(made)
			}
			return true
		case errors.Is(err, remote.ErrExists), try == tries:
			log.Error("a checkpoint is not copied to the object store, and this one will not be", "tries", try, "err", err)
			return true
		}
		log.Warn("a checkpoint is not copied to the object store yet", "try", try, "of", tries, "again_in", gap, "err", err)
		if !p.cfg.Sleep(p.ctx, gap/2+time.Duration(rand.Int64N(int64(gap)))) {
			return false
		}
		gap = min(2*gap, maxGap)
		p.mu.Lock()
		q.again = false // what has come meanwhile is what is tried next
		job = q.job
		p.mu.Unlock()
	}
}

// push copies the job's newest checkpoint, unless that is done. A zero Copy: there is none.
func (p *Pusher) push(job Job) (made Copy, err error) {
	store, err := open(job)
	if err != nil {
		return Copy{}, err
	}
	refs, err := store.List(p.ctx)
	if err != nil || len(refs) == 0 {
		return Copy{}, err
	}
	ref := refs[0]
	if address := remote.Marks(job.Dir)[ref]; strings.HasPrefix(address, p.cfg.Address+"/") {
		return Copy{Job: job, Ref: ref, Address: address}, nil
	}
	release, err := store.Lease(p.ctx, ref, holder(), p.cfg.Clock().Add(leaseFor))
	if err != nil {
		return Copy{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	m, err := store.Load(p.ctx, ref)
	if err != nil {
		return Copy{}, err
	}
	address := fmt.Sprintf("%s/%s/%s", p.cfg.Address, m.Job, ref)
	err = remote.Push(p.ctx, p.cfg.Bucket, store, m)
	p.cfg.Counted(m.ReadBytes(), err == nil)
	if err != nil {
		return Copy{}, err
	}
	if err := remote.Mark(job.Dir, ref, address); err != nil {
		p.cfg.Log.Warn("a copy is made, and nobody will see so in the directory", "job", job.Key.Job, "checkpoint", ref, "err", err)
	}
	p.collect(job, store, m.Job)
	return Copy{Job: job, Ref: ref, Address: address, Bytes: m.Bytes()}, nil
}

// open opens a job's checkpoints.
func open(job Job) (*checkpoint.Store, error) {
	dir, err := checkpoint.NewDir(job.Dir)
	if err != nil {
		return nil, err
	}
	name, err := checkpoint.JobOf(dir) // a program may have given its job another one
	if err != nil {
		name = job.Name
	}
	return checkpoint.Open(checkpoint.Config{FS: dir, Job: name})
}

func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "agent"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
