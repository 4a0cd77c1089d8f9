package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/async"
)

// commitWithin bounds how long rank 0 waits for the other ranks' shards: they save the same step at the same time.
const commitWithin = 20 * time.Second

// behind saves while the training goes on: a save holds it up for one copy of the state.
type behind struct {
	saver  *async.Saver
	saved  atomic.Int64 // step of the newest that is committed; on rank 0
	fenced atomic.Bool  // a newer epoch of the job has begun
}

// saveBehind copies the state and returns; what becomes of it is told later. An error means that this worker must end.
func (t *trainer) saveBehind(ctx context.Context) error {
	if t.saver == nil {
		return nil
	}
	rank, world := t.group.Rank(), t.group.WorldSize()
	if t.behind == nil {
		b := &behind{}
		var err error
		b.saver, err = async.New(async.Config{
			Store: t.saver.store, Epoch: t.saver.epoch, Rank: rank, WorldSize: world, Dir: t.client.Environment().SnapshotDir,
			CommitWithin: commitWithin, Done: func(r async.Result) { t.endedBehind(ctx, b, r) },
		})
		if err != nil {
			return err
		}
		t.behind = b
	}
	if t.behind.fenced.Load() {
		return fmt.Errorf("checkpoint of step %d: a newer epoch of this job has begun, this worker is late: %w", t.step, checkpoint.ErrFenced)
	}
	stall, err := t.behind.saver.Save(ctx, async.SaveRequest{
		Step: uint64(t.step), Tensors: t.tensors(), //nolint:gosec // a step is not negative
		Commit: checkpoint.CommitRequest{Meta: t.meta(), Metrics: t.metrics(), SavedAt: time.Now()},
	})
	if err != nil {
		t.warnf("rank %d can not copy the state for the checkpoint of step %d: %v", rank, t.step, err)
		return ctx.Err()
	}
	t.lastMetric["checkpoint_stall_seconds"] = stall.Total().Seconds()
	return nil
}

// endedBehind takes the end of a save, on the saver's goroutine.
func (t *trainer) endedBehind(ctx context.Context, b *behind, r async.Result) {
	switch {
	case errors.Is(r.Err, checkpoint.ErrFenced):
		b.fenced.Store(true)
	case r.Err != nil:
		t.warnf("the checkpoint of step %d is not committed: %v", r.Step, r.Err)
	case r.Manifest != nil:
		b.saved.Store(int64(r.Step)) //nolint:gosec // steps come from an int
		t.announce(ctx, r.Manifest, r.Stall.Total(), r.Stall.Total()+r.Persist)
	}
}

// settleBehind waits until all that was saved so is durable and committed.
func (t *trainer) settleBehind(ctx context.Context) {
	if t.behind == nil {
		return
	}
	_ = t.behind.saver.Close(ctx) // each end has been told
	t.savedStep = max(t.savedStep, int(t.behind.saved.Load()))
	t.behind = nil
}

// leaveBehind ends without a wait: what is copied and not yet durable the agent finishes.
func (t *trainer) leaveBehind() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	t.settleBehind(over)
}

// newestSaved is the step of the newest checkpoint that is committed.
func (t *trainer) newestSaved() int {
	if t.behind != nil {
		return max(t.savedStep, int(t.behind.saved.Load()))
	}
	return t.savedStep
}
