package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/async"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// defaultKeep is how many checkpoints stay where nobody says so.
const defaultKeep = 3

// CheckpointsRequest says where checkpoints lie and who writes them. Its zero value is that of the environment.
type CheckpointsRequest struct {
	// Dir is the job's own directory; empty means that of the environment.
	Dir string
	// Job is whose they are; empty means the environment's job, or "gangline" outside.
	Job string
	// Epoch is the epoch to begin; 0 means the environment's, and outside Gangline the one after the last.
	Epoch uint64
	// Keep is how many complete ones stay; 0 means what the job says, or 3.
	Keep int
	// Rank and WorldSize are those of the environment if WorldSize is 0.
	Rank, WorldSize int
}

// Checkpoints is a job's checkpoints, as one rank writes and reads them. Its methods may be called concurrently, but for saves.
type Checkpoints struct {
	session *Session
	store   *checkpoint.Store
	dir     string
	epoch   uint64
	keep    int
	agent   bool              // the agent removes what need not stay
	every   uint64            // steps of which checkpoints stay
	best    []checkpoint.Best // what stays beside
	rank    int
	world   int
	images  string // where asynchronous saves put their copies; "": private memory

	collecting sync.Mutex // one removes at a time

	mu    sync.Mutex // guards what follows
	saver *async.Saver
	saved int64 // the newest step that this rank knows to be committed, or -1
	fault error // of the last asynchronous save that went wrong, until it was told
}

// OpenCheckpoints begins an epoch: from here on older epochs of the job can save nothing more.
func (s *Session) OpenCheckpoints(r CheckpointsRequest) (handle int64, err error) {
	env, err := s.Environment()
	if err != nil {
		return 0, err
	}
	if r.WorldSize == 0 {
		r.Rank, r.WorldSize = env.Rank, env.WorldSize
	}
	c := &Checkpoints{session: s, dir: r.Dir, epoch: r.Epoch, keep: r.Keep, rank: r.Rank, world: r.WorldSize, images: env.SnapshotDir, every: env.CheckpointEvery, best: env.CheckpointBest, saved: -1}
	if c.dir == "" {
		c.dir = env.CheckpointDir
	}
	if c.dir == "" {
		return 0, invalid("there is no directory for checkpoints: name one, or run the program with `gangline submit`")
	}
	if c.keep == 0 {
		c.keep, c.agent = env.CheckpointKeep, env.Socket != "" && env.CheckpointKeep > 0
	}
	if c.keep == 0 {
		c.keep = defaultKeep
	}
	job := r.Job
	switch {
	case job != "":
	case env.JobID != 0:
		job = fmt.Sprintf("job-%d", env.JobID)
	default:
		job = "gangline"
	}
	dir, err := checkpoint.NewDir(c.dir)
	if err != nil {
		return 0, fmt.Errorf("open the checkpoint directory: %w", err)
	}
	stored := checkpoint.Config{FS: dir, Job: job}
	if c.dir == env.CheckpointDir && (c.epoch == 0 || c.epoch == env.Epoch) { // another directory has no agent that drains
		if stored.Local, err = env.Local(c.note); err != nil {
			return 0, err
		}
	}
	if err := stored.FromEnv(context.Background(), os.Getenv); err != nil {
		return 0, err
	}
	if c.store, err = checkpoint.Open(stored); err != nil {
		return 0, err
	}
	if err := c.begin(context.Background(), env); err != nil {
		return 0, err
	}
	return s.checkpoints.put(c), nil
}

// begin begins the epoch.
func (c *Checkpoints) begin(ctx context.Context, env workerclient.Environment) error {
	if c.epoch == 0 {
		c.epoch = env.Epoch
	}
	if c.epoch == 0 { // outside Gangline nobody numbers the starts
		last, err := c.store.Epoch(ctx)
		if err != nil {
			return fmt.Errorf("look into the checkpoint directory %s: %w", c.dir, err)
		}
		c.epoch = last + 1
	}
	if err := c.store.Fence(ctx, c.epoch); err != nil {
		return fmt.Errorf("begin epoch %d in the checkpoint directory %s: %w", c.epoch, c.dir, err)
	}
	return nil
}

// Checkpoints finds checkpoints by their handle.
func (s *Session) Checkpoints(handle int64) (*Checkpoints, error) {
	return s.checkpoints.get(handle, "checkpoints")
}

// CloseCheckpoints waits until what was saved asynchronously is durable, and on rank 0 committed. It gives the last error of a save that was not told.
func (s *Session) CloseCheckpoints(handle int64) error {
	c, err := s.checkpoints.take(handle, "checkpoints")
	if err != nil {
		return err
	}
	_, err = c.Settle()
	return err
}

// Epoch is the epoch that was begun.
func (c *Checkpoints) Epoch() uint64 { return c.epoch }

// Dir is where they lie.
func (c *Checkpoints) Dir() string { return c.dir }

// Saved gives the newest step that this rank knows to be committed, or -1, and, once, the error of an asynchronous save, or what went wrong
// after a commit: the report to the agent, the removal of old ones.
func (c *Checkpoints) Saved() (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.fault
	c.fault = nil
	return c.saved, err
}

// Settle waits until all asynchronous saves have ended, and gives what Saved does.
func (c *Checkpoints) Settle() (int64, error) {
	c.await()
	return c.Saved()
}

// await waits until all asynchronous saves have ended.
func (c *Checkpoints) await() {
	c.mu.Lock()
	saver := c.saver
	c.saver = nil
	c.mu.Unlock()
	if saver != nil {
		_ = saver.Close(context.Background()) // each end has been told
	}
}

// Commit makes a step's checkpoint count, once all ranks have written their parts, tells the agent, and removes old ones. One rank calls it. If it
// gives no error the checkpoint is committed; Saved tells whether the rest went wrong. began is when the save began, which held up the training since.
func (c *Checkpoints) Commit(r checkpoint.CommitRequest, began time.Time) error {
	r.Epoch, r.WorldSize, r.SavedAt = c.epoch, c.world, time.Now()
	m, err := c.store.Commit(context.Background(), r)
	if err != nil {
		return err
	}
	c.committed(int64(m.Step)) //nolint:gosec // steps come from an int64
	took := time.Since(began)
	c.note(c.announce(m, workerclient.Checkpoint{Cost: took, Took: took}))
	return nil
}

// note keeps an error for Saved to tell.
func (c *Checkpoints) note(err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = err
}

func (c *Checkpoints) committed(step int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.saved = max(c.saved, step)
}

// announce tells the agent of a committed checkpoint and removes old ones. The checkpoint is safe whatever error this gives.
func (c *Checkpoints) announce(m checkpoint.Manifest, report workerclient.Checkpoint) error {
	report.Step, report.Path, report.Bytes = int64(m.Step), filepath.Join(c.dir, m.Dir), m.Bytes() //nolint:gosec // steps come from an int64
	err := c.session.ReportCheckpoint(report)
	if err != nil {
		err = fmt.Errorf("the checkpoint of step %d is committed, but the agent does not know: %w", m.Step, err)
	}
	if c.agent {
		return err
	}
	return errors.Join(err, c.Collect())
}

// Collect removes checkpoints beyond those to keep, and what earlier epochs left half-written. One rank calls it.
func (c *Checkpoints) Collect() error {
	c.collecting.Lock()
	defer c.collecting.Unlock()
	_, err := c.store.Collect(context.Background(), checkpoint.CollectRequest{
		Epoch: c.epoch, Keep: c.keep, Every: c.every, Best: c.best, Now: time.Now(),
	})
	if err != nil {
		return fmt.Errorf("remove old checkpoints from %s: %w", c.dir, err)
	}
	return nil
}
