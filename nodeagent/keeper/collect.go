package keeper

import (
	"context"
	"errors"
	"math"

	"github.com/gangline/gangline/checkpoint"
)

// collect removes the job's checkpoints that need not stay. Without a number to keep it removes none.
func (w *watch) collect(ctx context.Context) {
	defer func() {
		// What was committed without a question counts too.
		if err := w.keeper.cfg.Admit(ctx, w.job.Key, 0); err != nil {
			w.keeper.cfg.Problem(w.job.Key, err.Error())
		}
	}()
	if w.job.Stay.Keep < 1 {
		return
	}
	store, err := w.job.open()
	var out checkpoint.Collected
	if err == nil {
		out, err = store.Collect(ctx, checkpoint.CollectRequest{
			Epoch: w.job.Key.Epoch, Keep: w.job.Stay.Keep, Every: w.job.Stay.Every, Best: w.job.Stay.Best, Now: w.keeper.cfg.Clock(),
		})
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, checkpoint.ErrFenced) { // the next epoch's agent goes on
		w.warn("older checkpoints are not removed", "err", err)
	}
	for _, s := range out.Skipped {
		w.warn("a checkpoint is damaged", "checkpoint", s.Ref, "err", s.Err)
	}
}

// metrics are what the worker last said of its training, as a checkpoint may hold them.
func (w *watch) metrics() map[string]float64 { return Finite(w.keeper.cfg.Metrics(w.job.Key)) }

// Finite gives of a worker's metrics what a checkpoint may hold.
func Finite(all map[string]float64) map[string]float64 {
	out := map[string]float64{}
	for name, v := range all {
		if !math.IsNaN(v) && !math.IsInf(v, 0) && len(out) < checkpoint.MaxMetrics {
			out[name] = v
		}
	}
	return out
}
