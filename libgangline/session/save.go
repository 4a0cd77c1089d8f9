package session

import (
	"context"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/async"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// Save is what one rank saves of one step. One goroutine at a time uses it.
type Save struct {
	to      *Checkpoints
	step    uint64
	began   time.Time
	tensors []checkpoint.Tensor
	meta    map[string]string  // of the whole checkpoint; rank 0's counts
	metrics map[string]float64 // likewise
}

// BeginSave begins to save a step.
func (s *Session) BeginSave(checkpoints, step int64) (handle int64, err error) {
	c, err := s.Checkpoints(checkpoints)
	if err != nil {
		return 0, err
	}
	if step < 0 {
		return 0, invalid("step %d is below 0", step)
	}
	return s.saves.put(&Save{to: c, step: uint64(step), began: time.Now(), meta: map[string]string{}, metrics: map[string]float64{}}), nil
}

// Save finds a save by its handle.
func (s *Session) Save(handle int64) (*Save, error) { return s.saves.get(handle, "save") }

// EndSave forgets a save.
func (s *Session) EndSave(handle int64) error {
	_, err := s.saves.take(handle, "save")
	return err
}

// Add gives it one more tensor, or this rank's part of one. The data stays the caller's until the save has been written or copied.
func (s *Save) Add(t checkpoint.Tensor) { s.tensors = append(s.tensors, t) }

// SetText and SetMetric say something beside the tensors.
func (s *Save) SetText(key, value string) { s.meta[key] = value }

// SetMetric gives a number by which the best checkpoints can be kept.
func (s *Save) SetMetric(name string, value float64) { s.metrics[name] = value }

// Write makes this rank's part durable, after what was saved asynchronously before: a rank writes its steps one after the other.
func (s *Save) Write() error {
	c := s.to
	c.await()
	_, err := c.store.WriteShard(context.Background(), checkpoint.ShardWrite{
		Epoch: c.epoch, Step: s.step, Rank: c.rank, WorldSize: c.world, Tensors: s.tensors,
	})
	return err
}

// Commit makes the checkpoint count; see Checkpoints.Commit.
func (s *Save) Commit() error {
	return s.to.Commit(checkpoint.CommitRequest{Step: s.step, Meta: s.meta, Metrics: s.metrics}, s.began)
}

// Later copies the tensors and returns how long that took; the rest goes on without the caller, commit and all. Checkpoints.Saved tells how it ended.
func (s *Save) Later() (time.Duration, error) {
	saver, err := s.to.asynchronous()
	if err != nil {
		return 0, err
	}
	stall, err := saver.Save(context.Background(), async.SaveRequest{
		Step: s.step, Tensors: s.tensors, Commit: checkpoint.CommitRequest{Meta: s.meta, Metrics: s.metrics, SavedAt: time.Now()},
	})
	return stall.Total(), err
}

// asynchronous gives what saves in the background, made at the first such save.
func (c *Checkpoints) asynchronous() (*async.Saver, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.saver != nil {
		return c.saver, nil
	}
	saver, err := async.New(async.Config{
		Store: c.store, Epoch: c.epoch, Rank: c.rank, WorldSize: c.world, Dir: c.images, Done: c.ended,
	})
	c.saver = saver
	return saver, err
}

// ended takes the end of an asynchronous save, on a goroutine of the saver.
func (c *Checkpoints) ended(r async.Result) {
	err := r.Err
	if err == nil && r.Manifest != nil {
		c.committed(int64(r.Step)) //nolint:gosec // steps come from an int64
		err = c.announce(*r.Manifest, workerclient.Checkpoint{Cost: r.Stall.Copy, Took: r.Persist})
	}
	c.note(err)
}
