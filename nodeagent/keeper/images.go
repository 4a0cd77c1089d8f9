package keeper

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/gangline/gangline/checkpoint/async"
)

// finishWithin bounds how long the agent of rank 0 waits for the shards of other nodes, whose agents finish theirs at the same time.
const finishWithin = 30 * time.Second

// finish makes durable, and commits, what a worker had copied into shared memory and could not write any more.
func (w *watch) finish(ctx context.Context) {
	if w.job.Images == "" {
		return
	}
	if left, err := os.ReadDir(w.job.Images); err != nil || len(left) == 0 {
		return // most workers: there is none, or it ended in peace
	}
	w.set(func() { w.busy = true })
	defer w.set(func() { w.busy = false })
	store, err := w.job.openToWrite(ctx, &w.keys)
	if err != nil {
		w.warn("the checkpoint of a worker that died cannot be finished", "err", err)
		return
	}
	done, err := async.Finish(ctx, store, w.job.Images, finishWithin)
	for _, m := range done {
		path := filepath.Join(w.job.Dir, m.Dir)
		w.keeper.cfg.Log.Info("checkpoint of a worker that died was finished", w.args("step", m.Step, "path", path, "bytes", m.Bytes())...)
		w.keeper.cfg.Committed(Commit{Key: w.job.Key, Step: m.Step, Path: path, Bytes: m.Bytes()})
	}
	if err != nil && ctx.Err() == nil {
		w.warn("the checkpoint of a worker that died cannot be finished", "rank", w.job.Key.Rank, "err", err)
	}
}

// dropImages gives the shared memory back.
func (w *watch) dropImages() {
	if w.job.Images == "" {
		return
	}
	if err := os.RemoveAll(w.job.Images); err != nil {
		w.warn("shared memory of a worker that ended is not given back", "dir", w.job.Images, "err", err)
	}
}
