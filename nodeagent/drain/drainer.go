package drain

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// lookEvery is how often the disk is looked at.
	lookEvery = time.Second
	// firstRetry and lastRetry bound the wait after a job's shared directory could not be written; it doubles in between.
	firstRetry = time.Second
	lastRetry  = time.Minute
	// idleFor is how long a copy stays on the node after its job has gone from it, for a start that comes back.
	idleFor = 24 * time.Hour

	// maxNames bounds the jobs whose names are remembered.
	maxNames = 4096

	ownDir    = "own"    // shards of this node's ranks, by job
	copiesDir = "copies" // of other nodes' ranks
	roomFile  = "room"   // in a job's own directory: how many bytes it may still write
)

// Config is what a Drainer works with. Root, Shared, MaxBytes and Node are required.
type Config struct {
	// Root is the directory on the node's own disk, Shared the one on the shared storage; both have a job's files below job-ID.
	Root, Shared string
	// MaxBytes bounds what lies below Root, but for what is being saved at the moment. Room for three saves of all jobs of the node
	// is right: one being written, one being drained, one to resume from. With less, saves go to the shared storage directly.
	MaxBytes int64
	// Rate bounds what is written to the shared storage, in bytes a second; 0: as fast as it goes.
	Rate int64
	// Node names this node among all, Address is where its agent is reached.
	Node    string
	Address func() string
	// Live says whether a job has workers on this node.
	Live func(job uint64) bool
	// Looked is called each second, and when a checkpoint has become complete, perhaps at the same time.
	Looked func()
	// Send gives an agent's copy of a shard away; nil: no copies are made. To is set by SetPeer.
	Send func(ctx context.Context, to string, job uint64, file string, content *os.File) error
	// Admit makes room for a part of so many bytes, and says why it may not be committed; nil: all may.
	Admit func(ctx context.Context, job, epoch uint64, bytes int64) error
	// Problem takes why what a gang has saved is no checkpoint yet, and "" when it is; Joined, that it is complete on its nodes' own disks. nil: nobody is told.
	Problem func(job, epoch uint64, text string)
	Joined  func(job, epoch uint64, m checkpoint.Manifest)
	Log     *slog.Logger
}

// Drainer copies what ranks save on the node's own disk to the shared storage. Its methods may be called concurrently.
type Drainer struct {
	cfg   Config
	limit *rate.Limiter // nil: none
	poke  chan struct{}

	drained atomic.Int64 // bytes

	gangMu sync.Mutex
	gangs  map[uint64]*gang // by job

	mu         sync.Mutex
	peer       string // where copies go; "": nowhere
	kept       int64  // of these, copies for other nodes
	used       int64  // bytes below Root at the last look
	files      int64  // of these, checkpoints of programs' own files
	fileCopies int64  // of files, copies for other nodes
	inUse      map[uint64]startedFrom
	wholes     int64                  // bytes of whole copies that are nothing else's
	wholeUse   map[uint64]startedFrom // from which of them jobs start
	next       int64                  // what all jobs that run here save at once
	copies     map[string]int64       // what is being received, by path, and how large it will be
	later      map[uint64]*retry      // jobs whose shared directory could not be written
	usage      Usage                  // without Drained
	names      map[uint64]string      // by which checkpoints know their jobs
	fates      map[string]fate        // of parts, by path, as far as they are known
	noted      map[string]string      // what Hold was told, by path
	sent       map[string]string      // to whom a part was copied, by path
	told       map[string]time.Time   // warnings, so that each is said once in a while
}

// retry is the wait of one job.
type retry struct {
	wait time.Duration
	at   time.Time
}

// maxChunk bounds what one wait of the rate's limiter is for.
const maxChunk = checkpoint.MaxChunkBytes

// New makes the directories. Run starts the work.
func New(cfg Config) (*Drainer, error) {
	if cfg.Live == nil {
		cfg.Live = func(uint64) bool { return false }
	}
	if cfg.Looked == nil {
		cfg.Looked = func() {}
	}
	if cfg.Admit == nil {
		cfg.Admit = func(context.Context, uint64, uint64, int64) error { return nil }
	}
	if cfg.Problem == nil {
		cfg.Problem = func(uint64, uint64, string) {}
	}
	if cfg.Joined == nil {
		cfg.Joined = func(uint64, uint64, checkpoint.Manifest) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{ownDir, copiesDir} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, dir), 0o750); err != nil {
			return nil, fmt.Errorf("make the directory for local checkpoints: %w: name one on a disk of the node that the agent may write", err)
		}
	}
	d := &Drainer{
		cfg: cfg, poke: make(chan struct{}, 1), copies: map[string]int64{}, later: map[uint64]*retry{},
		gangs: map[uint64]*gang{}, inUse: map[uint64]startedFrom{}, wholeUse: map[uint64]startedFrom{}, noted: map[string]string{}, fates: map[string]fate{}, names: map[uint64]string{}, sent: map[string]string{}, told: map[string]time.Time{},
	}
	if cfg.Rate > 0 {
		d.limit = rate.NewLimiter(rate.Limit(cfg.Rate), maxChunk)
		d.limit.AllowN(time.Now(), maxChunk) // no burst at the start
	}
	return d, nil
}

// Run looks again and again until ctx ends. What it has begun the next one goes on with.
func (d *Drainer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	// Apart from draining, which may take long: what has come is told, and the room, which needs no shared storage.
	wg.Go(func() { every(ctx, d.cfg.Looked) })
	wg.Go(func() { every(ctx, func() { d.tidy(d.list()) }) })
	wg.Go(func() { every(ctx, func() { d.tidyFiles(ctx) }) })
	wg.Go(func() { every(ctx, func() { d.tidyWhole(ctx) }) })
	wg.Go(func() { every(ctx, func() { d.lookGangs(ctx) }) })
	if d.cfg.Send != nil {
		wg.Go(func() { every(ctx, func() { d.copyAll(ctx) }) })
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		d.Look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.poke:
		}
	}
}

// every calls f each second until ctx ends.
func every(ctx context.Context, f func()) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Poke says that something may be there to drain. It does not block.
func (d *Drainer) Poke() {
	select {
	case d.poke <- struct{}{}:
	default:
	}
}

// SetPeer says to which agent copies go from now on; "": to none.
func (d *Drainer) SetPeer(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peer = address
}

func (d *Drainer) peerNow() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peer
}

// JobDir gives the directory on the node's own disk in which a job that is about to start may save. It says how much room there is.
func (d *Drainer) JobDir(job uint64) (string, error) {
	dir := filepath.Join(d.cfg.Root, ownDir, jobName(job))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	d.mu.Lock()
	used := d.used
	d.mu.Unlock()
	return dir, d.tellRoom(dir, d.cfg.MaxBytes-used)
}

func jobName(job uint64) string { return "job-" + strconv.FormatUint(job, 10) }

// store opens a job's checkpoints on the shared storage. A job that has no directory there gives fs.ErrNotExist: it may not be mounted.
// The name by which they know the job is looked for until there is one to be found.
func (d *Drainer) store(job uint64) (*checkpoint.Store, error) {
	path := filepath.Join(d.cfg.Shared, jobName(job))
	d.mu.Lock()
	name := d.names[job]
	d.mu.Unlock()
	if name == "" {
		var err error
		if name, err = nameOf(path); err != nil {
			return nil, err
		}
		if name != "" {
			d.mu.Lock()
			if len(d.names) >= maxNames {
				clear(d.names)
			}
			d.names[job] = name
			d.mu.Unlock()
		}
	}
	return openStore(path, cmp.Or(name, jobName(job)))
}

// pace waits for the rate.
func (d *Drainer) pace(ctx context.Context, bytes int) error {
	if d.limit == nil {
		return nil
	}
	return d.limit.WaitN(ctx, bytes)
}

// warn says something once a minute at most.
func (d *Drainer) warn(what, msg string, args ...any) {
	if d.now(what) {
		d.cfg.Log.Warn(msg, args...)
	}
}

// now says once a minute of what is to be done so often that it is time.
func (d *Drainer) now(what string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.told) > 1024 {
		clear(d.told)
	}
	again := time.Since(d.told[what]) >= lastRetry
	if again {
		d.told[what] = time.Now()
	}
	return again
}

// due says whether a job's turn has come again after errors.
func (d *Drainer) due(job uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.later[job]
	return r == nil || !time.Now().Before(r.at)
}

// went notes how a job's turn went.
func (d *Drainer) went(job uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.later, job)
		return
	}
	r := d.later[job]
	if r == nil {
		r = &retry{wait: firstRetry / 2}
		d.later[job] = r
	}
	r.wait = min(2*r.wait, lastRetry)
	r.at = time.Now().Add(r.wait)
}
