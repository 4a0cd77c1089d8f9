package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/examples/digits/model"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

const (
	// rendezvousTimeout bounds the wait for ranks that never start: long enough for slow nodes, shorter than anybody
	// would leave GPUs idle.
	rendezvousTimeout = 5 * time.Minute
	// reportTimeout bounds a report to the agent: an agent restart takes a second or so.
	reportTimeout = 10 * time.Second
	// ringTimeout bounds one call on the ring: a rank that lives but does not come, such as one whose disk hangs.
	ringTimeout = 5 * time.Minute
)

// run is the life of one worker. It prints what a person wants to follow to out, on rank 0 only, and what went wrong to diag.
// A wish to stop ends it early, with errStopped, once a checkpoint is committed.
func run(ctx context.Context, env workerclient.Environment, cfg config, stop *stopper, out, diag io.Writer) error {
	// 1. The data, and the agent, whose notices are wishes to stop.
	data, err := model.Parse(zippedDigits)
	if err != nil {
		return err
	}
	client, err := workerclient.New(env)
	if err != nil {
		return err
	}
	var watch sync.WaitGroup
	watch.Go(func() { // ends when client is closed
		for notice := range client.Notices() {
			stop.ask(notice.Reason)
		}
	})
	defer func() {
		_ = client.Close() // the last report is a courtesy
		watch.Wait()
	}()

	// 2. The checkpoints: from here on an older epoch of this job can save nothing any more.
	saver, err := openSaver(ctx, env, cfg)
	if err != nil {
		return err
	}

	// 3. The ring, whose join is also the proof that every rank has done step 2.
	made := &rings{client: client, cfg: cfg, stop: stop, diag: diag}
	group, err := made.join(ctx, 0, workerclient.NobodyLost)
	if err != nil {
		return withPeerReport(ctx, client, err)
	}

	// 4. The past, then the training.
	t := newTrainer(cfg, data, group, saver, client, stop, out, diag)
	defer func() { _ = t.group.Close() }() // returns nil
	return withPeerReport(ctx, client, t.trainOn(ctx, env.ResumeFrom, made.join))
}

// withPeerReport tells the agent if err is the loss of another rank, so that the job starts again without blame for
// this one. It returns err.
func withPeerReport(ctx context.Context, client *workerclient.Client, err error) error {
	lost, ok := lostPeer(err, client.Environment().Rank)
	if !ok {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	return errors.Join(err, client.ReportPeerLost(ctx, lost.Rank, lost.Cause.Error()))
}

// openSaver begins this epoch in the checkpoint directory. It returns nil if there is none.
func openSaver(ctx context.Context, env workerclient.Environment, cfg config) (*saver, error) {
	s := &saver{path: env.CheckpointDir, epoch: env.Epoch, keep: cfg.keep, recipe: cfg.recipe()}
	job := fmt.Sprintf("job-%d", env.JobID)
	if s.path == "" {
		s.path, job = cfg.dir, "digits"
	}
	if s.path == "" {
		return nil, nil //nolint:nilnil // no directory, no checkpoints
	}
	if s.keep == 0 {
		s.keep, s.every, s.best = env.CheckpointKeep, env.CheckpointEvery, env.CheckpointBest
		s.agent = env.Socket != "" && s.keep > 0
	}
	if s.keep == 0 {
		s.keep = defaultKeep
	}
	dir, err := checkpoint.NewDir(s.path)
	if err != nil {
		return nil, fmt.Errorf("open the checkpoint directory: %w", err)
	}
	local, err := env.Local(func(err error) { fmt.Fprintln(os.Stderr, "digits:", err) })
	if err != nil {
		return nil, fmt.Errorf("open the node's own disk for checkpoints: %w", err)
	}
	stored := checkpoint.Config{FS: dir, Job: job, Local: local}
	if err := stored.FromEnv(ctx, os.Getenv); err != nil {
		return nil, err
	}
	if s.store, err = checkpoint.Open(stored); err != nil {
		return nil, err
	}
	if env.Socket == "" {
		// Outside Gangline nobody numbers the starts, so each one is the epoch after the last.
		last, err := s.store.Epoch(ctx)
		if err != nil {
			return nil, fmt.Errorf("look into the checkpoint directory %s: %w", s.path, err)
		}
		s.epoch = last + 1
	}
	if err := s.store.Fence(ctx, s.epoch); err != nil {
		return nil, fmt.Errorf("begin epoch %d in the checkpoint directory %s: %w", s.epoch, s.path, err)
	}
	return s, nil
}
