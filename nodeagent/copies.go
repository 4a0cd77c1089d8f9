package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/remote"
	"github.com/gangline/gangline/nodeagent/pusher"
	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// pushDir, in the state directory, holds what is still to be copied to the object store.
const pushDir = "push"

// openPusher prepares copies in the object store, if the agent has one.
func (a *Agent) openPusher() error {
	bucket := a.cfg.bucket
	if bucket == nil && a.cfg.CheckpointRemote == "" {
		return nil
	}
	if bucket == nil {
		var err error
		if bucket, err = remote.OpenS3(a.cfg.CheckpointRemote, a.cfg.CheckpointEndpoint); err != nil {
			return fmt.Errorf("checkpoint remote: %w", err)
		}
	}
	var err error
	a.pusher, err = pusher.New(pusher.Config{
		Bucket: bucket, Address: strings.TrimSuffix(a.cfg.CheckpointRemote, "/"), StateDir: filepath.Join(a.cfg.StateDir, pushDir),
		Pushed: a.pushed, Counted: a.countPush, Clock: a.cfg.Clock, Log: a.log,
	})
	return err
}

func (a *Agent) countPush(bytes int64, ok bool) { a.metrics.Pushed(bytes, ok) }

// pushJob is a job as the pusher knows it.
func (a *Agent) pushJob(key reconcile.Key) pusher.Job {
	dir := checkpointDir(a.cfg.CheckpointRoot, key.Job)
	return pusher.Job{Key: key, Dir: dir, Name: filepath.Base(dir)}
}

// pushDue says that a worker's job has one more checkpoint. That of rank 0 is told of.
func (a *Agent) pushDue(key reconcile.Key) {
	if a.pusher == nil || key.Rank != 0 {
		return
	}
	for _, st := range a.workers.Workers() {
		if reconcile.Key(st.Key) == key {
			keep, p := savingOf(st)
			job, stay := a.pushJob(key), retention(keep, p)
			job.Stay = pusher.Stay{Keep: stay.Keep, Every: stay.Every, Best: stay.Best}
			a.pusher.Committed(job, int(p.GetPushNth()))
		}
	}
}

// pushed keeps where a copy is, for the leader.
func (a *Agent) pushed(c pusher.Copy) { a.sockets.Copied(c.Job.Key, c.Address, int64(c.Ref.Step)) } //nolint:gosec // at most 63 bits

// fetch brings the checkpoint that a start resumes from, where the shared storage has none and the job has copies. The path: what was brought, or "".
func (a *Agent) fetch(ctx context.Context, key reconcile.Key, as *agentv1.Assignment) (string, error) {
	if as.GetCheckpoints().GetPushNth() < 1 {
		return "", nil
	}
	if a.pusher == nil {
		a.log.Warn("a job asks for copies in an object store, and this agent has none: give it --checkpoint-remote", keyArgs(key)...)
		return "", nil
	}
	job := a.pushJob(key)
	if err := os.MkdirAll(job.Dir, 0o755); err != nil { //nolint:gosec // as at a launch
		return "", err
	}
	got, err := a.pusher.Fetch(ctx, job, as.GetNodeRank() == 0)
	for _, bad := range got.Skipped {
		a.log.Error("a copy in the object store is damaged, an older one is taken: the work since then is repeated", keyArgs(key, "err", bad)...)
	}
	if err != nil && ctx.Err() == nil && as.GetResumeFrom() == "" && !errors.Is(err, checkpoint.ErrAllBad) {
		// The scheduler has never heard of a checkpoint, so it has no copies, but for one that somebody has put there for it.
		a.log.Warn("the object store does not answer: the job starts as if it had no copies there", keyArgs(key, "err", err)...)
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("the shared storage holds no checkpoint, and the object store gives none: %w", err)
	}
	if got.Ref.Epoch == 0 {
		return "", nil
	}
	path := filepath.Join(job.Dir, got.Ref.String())
	a.log.Warn("the shared storage held no checkpoint: one was brought from the object store", keyArgs(key, "checkpoint", got.Ref, "path", path)...)
	return path, nil
}
