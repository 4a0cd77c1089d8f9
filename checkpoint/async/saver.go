package async

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

// Config is what a Saver works with. Store is required; Rank and WorldSize are those of the epoch.
type Config struct {
	Store     *checkpoint.Store
	Epoch     uint64 // begun with Store.Fence
	Rank      int
	WorldSize int
	// Dir, if not empty, is where images lie in shared memory (a directory on tmpfs), so that the agent can finish a save whose
	// worker has died. Empty: private memory.
	Dir string
	// CommitWithin bounds how long rank 0 waits for the other ranks' shards of a step; 0 means 10 minutes. Too short loses
	// checkpoints when a rank's storage is slow; too long only delays the error. The save after the next ends the wait too.
	CommitWithin time.Duration
	// Done, if not nil, is told of the end of each save. It is called on the saver's goroutines, one call at a time, and must not call Save or Close.
	Done func(Result)
}

// Stall is how long a save held up the training.
type Stall struct {
	Wait time.Duration // for an earlier save to be durable: back-pressure
	Copy time.Duration // of the tensors
}

// Total is the whole time that the training stood still.
func (s Stall) Total() time.Duration { return s.Wait + s.Copy }

// Result is how a save ended.
type Result struct {
	Step     uint64
	Stall    Stall
	Persist  time.Duration        // from the copy to the durable shard
	Manifest *checkpoint.Manifest // on rank 0, once committed
	Shard    checkpoint.ShardInfo // of this rank
	Err      error                // then the step is no checkpoint
}

// SaveRequest is what one rank saves of one step. Steps rise from save to save.
type SaveRequest struct {
	Step    uint64
	Tensors []checkpoint.Tensor // read until Save returns
	Meta    map[string]string   // this rank's own
	// Commit is the whole checkpoint's meta and metrics; of rank 0 alone. Its Epoch, Step and WorldSize are filled in.
	Commit checkpoint.CommitRequest
}

// defaultCommitWithin is Config.CommitWithin by default.
const defaultCommitWithin = 10 * time.Minute

// Saver saves one rank's part in the background. One goroutine calls Save; Close it before the process ends.
type Saver struct {
	cfg    Config
	memory memory
	image  *checkpoint.Image
	failed *uint64 // the step whose shard could not be written, and whose note stays; who holds the token of free has it and the two above

	ctx     context.Context //nolint:containedctx // the life of the saver's goroutines
	cancel  context.CancelFunc
	jobs    chan job      // to the goroutine that makes shards durable
	free    chan struct{} // holds one token when the image may be filled
	commits chan job      // to the goroutine that commits; of rank 0
	wg      sync.WaitGroup

	told sync.Mutex // one call of Done at a time

	mu      sync.Mutex
	copies  uint64 // how many saves have been copied
	lastErr error  // of saves that nobody has heard of yet
}

// job is one save on its way.
type job struct {
	request SaveRequest
	result  Result
	copied  time.Time
	number  uint64 // of the save, from 1
}

// commitsQueued bounds steps that wait for the other ranks: one more than a step that is being written and one that waits.
const commitsQueued = 4

// New gives a saver. Memory is taken at the first Save.
func New(cfg Config) (*Saver, error) {
	if cfg.Store == nil || cfg.WorldSize < 1 || cfg.Rank < 0 || cfg.Rank >= cfg.WorldSize {
		return nil, fmt.Errorf("%w: async saver: rank %d of %d, and a store", checkpoint.ErrInvalid, cfg.Rank, cfg.WorldSize)
	}
	if cfg.CommitWithin == 0 {
		cfg.CommitWithin = defaultCommitWithin
	}
	s := &Saver{
		cfg: cfg, memory: memory{dir: cfg.Dir, rank: cfg.Rank},
		jobs: make(chan job, 1), free: make(chan struct{}, 1), commits: make(chan job, commitsQueued),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.free <- struct{}{}
	s.wg.Add(2)
	go s.persistAll()
	go s.commitAll()
	return s, nil
}

// Save copies the tensors and returns; the rest goes on without it. It waits first while the last save is not durable yet. The
// error is of this copy, or of ctx; how the save ends is told to Config.Done and by Close. From the second save of the same tensors on
// it allocates nothing.
func (s *Saver) Save(ctx context.Context, r SaveRequest) (Stall, error) {
	start := time.Now()
	select {
	case <-s.free:
	default: // the clock is read only once where nothing waits
		select {
		case <-s.free:
		case <-ctx.Done():
			return Stall{Wait: time.Since(start)}, ctx.Err()
		}
	}
	waited := time.Now()
	if s.failed != nil { // the agent must not try what the memory holds no more
		if err := s.memory.drop(*s.failed); err != nil {
			s.free <- struct{}{}
			return Stall{Wait: waited.Sub(start)}, fmt.Errorf("save step %d: %w", r.Step, err)
		}
		s.failed = nil
	}
	if err := s.fill(r); err != nil {
		s.free <- struct{}{}
		return Stall{Wait: waited.Sub(start)}, fmt.Errorf("save step %d: %w", r.Step, err)
	}
	done := time.Now()
	stall := Stall{Wait: waited.Sub(start), Copy: done.Sub(waited)}
	s.mu.Lock()
	s.copies++
	number := s.copies
	s.mu.Unlock()
	s.jobs <- job{request: r, result: Result{Step: r.Step, Stall: stall}, copied: done, number: number} // never blocks: the token allows one
	return stall, nil
}

// fill copies the tensors into the image, which is made at the first call or when it is too small.
func (s *Saver) fill(r SaveRequest) error {
	w := checkpoint.ShardWrite{
		Epoch: s.cfg.Epoch, Step: r.Step, Rank: s.cfg.Rank, WorldSize: s.cfg.WorldSize, Tensors: r.Tensors, Meta: r.Meta,
	}
	if s.image != nil {
		if err := s.image.Fill(w); err == nil {
			return nil
		}
	}
	need, err := s.cfg.Store.ImageBytes(w)
	if err != nil {
		return err
	}
	mem, err := s.memory.take(need)
	if err != nil {
		return err
	}
	s.image = s.cfg.Store.NewImage(mem)
	return s.image.Fill(w)
}

// persistAll makes one shard after the other durable.
func (s *Saver) persistAll() {
	defer s.wg.Done()
	defer close(s.commits)
	for j := range s.jobs {
		j.result.Shard, j.result.Err = s.persist(j)
		j.result.Persist = time.Since(j.copied)
		if j.result.Err != nil {
			step := j.request.Step
			s.failed = &step
		}
		s.free <- struct{}{}
		if j.result.Err != nil || s.cfg.Rank != 0 {
			s.tell(j.result)
			continue
		}
		s.commits <- j
	}
}

// persist writes the image. The note beside it tells the agent that there is something to finish.
func (s *Saver) persist(j job) (checkpoint.ShardInfo, error) {
	if err := s.memory.note(s.image, s.commitRequest(j)); err != nil {
		return checkpoint.ShardInfo{}, fmt.Errorf("save step %d: %w", j.request.Step, err)
	}
	info, err := s.image.Write(s.ctx)
	if err == nil && s.cfg.Rank != 0 {
		err = s.memory.drop(j.request.Step)
	}
	return info, err
}

func (s *Saver) commitRequest(j job) checkpoint.CommitRequest {
	c := j.request.Commit
	c.Epoch, c.Step, c.WorldSize = s.cfg.Epoch, j.request.Step, s.cfg.WorldSize
	return c
}

// Waits between two looks whether all ranks' shards are there.
const (
	commitPollMin = 5 * time.Millisecond
	commitPollMax = 500 * time.Millisecond
)

// commitAll commits one step after the other, once all shards are there.
func (s *Saver) commitAll() {
	defer s.wg.Done()
	for j := range s.commits {
		m, err := Commit(s.ctx, s.cfg.Store, s.commitRequest(j), s.cfg.CommitWithin, func() bool { return s.decided(j.number) })
		if err == nil {
			j.result.Manifest = &m
			err = s.memory.drop(j.request.Step)
		}
		j.result.Err = err
		s.tell(j.result)
	}
}

// decided says whether every rank's part of a save is durable or has failed. Ranks train in step, so when this one has copied the save after
// the next, the others have come as far as that: their copies of the next one waited for this one.
func (s *Saver) decided(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copies >= number+2
}

// Commit commits a step once all ranks' shards are there, and waits for that at most within; gaveUp, asked now and then, ends the wait
// sooner. Then the error is checkpoint.ErrIncomplete. Other errors are those of Store.Commit.
func Commit(ctx context.Context, store *checkpoint.Store, r checkpoint.CommitRequest, within time.Duration, gaveUp func() bool) (checkpoint.Manifest, error) {
	deadline := time.Now().Add(within)
	for wait := commitPollMin; ; wait = min(2*wait, commitPollMax) {
		last := time.Now().After(deadline) || gaveUp() // asked first: what became durable before it counts
		m, err := store.Commit(ctx, r)
		if err == nil || last || !errors.Is(err, checkpoint.ErrIncomplete) || errors.Is(err, checkpoint.ErrFenced) {
			return m, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return m, errors.Join(ctx.Err(), err)
		}
	}
}

// tell gives a result to Done, and keeps its error for Close.
func (s *Saver) tell(r Result) {
	if r.Err != nil {
		s.mu.Lock()
		s.lastErr = r.Err
		s.mu.Unlock()
	}
	if s.cfg.Done != nil {
		s.told.Lock()
		defer s.told.Unlock()
		s.cfg.Done(r)
	}
}

// Close waits until all that was saved is durable and, on rank 0, committed; ctx cuts that short. It gives the last error of a save. Its
// memory goes back.
func (s *Saver) Close(ctx context.Context) error {
	close(s.jobs)
	ended := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		s.cancel()
		<-ended
	}
	s.cancel()
	return errors.Join(s.lastErr, s.memory.release())
}
