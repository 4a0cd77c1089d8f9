package nodeagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/keeper"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// verifyWithin bounds the verification of a checkpoint of files before a launch: the scheduler gives up on a launch after 5 minutes.
const verifyWithin = 4 * time.Minute

// keptJob is a job as the keeper knows it.
func (a *Agent) keptJob(key reconcile.Key, stay keeper.Retention) keeper.Job {
	dir := checkpointDir(a.cfg.CheckpointRoot, key.Job)
	job := keeper.Job{Key: key, Dir: dir, Name: filepath.Base(dir), Stay: stay, Images: a.imageDir(key), Environ: a.environOf(key)}
	if d := a.tiers.drainer; d != nil {
		job.Local = d.FilesDir(key.Job)
		if d.HasGang(key.Job, key.Epoch) { // its parts are the drainer's
			job.Local = ""
			job.Ended = func(ctx context.Context) { d.FinishGang(ctx, key.Job, key.Epoch) }
		}
	}
	return job
}

// environOf gives a worker's environment and working directory: nothing, if it is not known.
func (a *Agent) environOf(key reconcile.Key) func() ([]string, string) {
	return func() ([]string, string) {
		spec, err := a.workers.Spec(worker.Key(key))
		if err != nil {
			return nil, ""
		}
		return spec.Env, spec.Dir
	}
}

// sharedMemory is where Linux has its tmpfs for memory that processes share.
const sharedMemory = "/dev/shm"

// imageRoot is the directory below which this agent's workers have theirs in shared memory, "" where there is no such file system. Agents of
// other state directories have others.
func (a *Agent) imageRoot() string {
	if info, err := os.Stat(sharedMemory); err != nil || !info.IsDir() {
		return ""
	}
	state, err := filepath.Abs(a.cfg.StateDir)
	if err != nil {
		return ""
	}
	return filepath.Join(sharedMemory, fmt.Sprintf("gangline-%d-%016x", os.Getuid(), xxh3.HashString(state)))
}

// imageDir is where a worker may keep copies of its state, for the agent to finish saving them. The worker makes it.
func (a *Agent) imageDir(key reconcile.Key) string {
	if root := a.imageRoot(); root != "" {
		return filepath.Join(root, key.String())
	}
	return ""
}

// keepCheckpoints has the keeper watch the jobs of all workers, up to a last look when one has ended.
func (a *Agent) keepCheckpoints() {
	present := map[reconcile.Key]bool{}
	for _, st := range a.workers.Workers() {
		key := reconcile.Key(st.Key)
		if st.Acked {
			continue
		}
		present[key] = true
		a.adoptGang(st)
		a.keeper.Watch(a.keptJob(key, retention(savingOf(st))), st.State == worker.Exited)
	}
	a.keeper.Forget(func(key reconcile.Key) bool { return present[key] })
	a.dropOwners(present)
}

// workerStatuses are the workers of this node. One that has ended counts as stopping until the keeper has had its last look at the
// job's checkpoints: its end starts the job's next epoch, which fences off whatever is not committed by then.
func (a *Agent) workerStatuses() []worker.Status {
	all := a.workers.Workers()
	for i := range all {
		if st := &all[i]; st.State == worker.Exited && !st.Acked && !a.keeper.Settled(reconcile.Key(st.Key)) {
			st.State, st.Reason = worker.Stopping, "has ended; files that it saved are being committed"
		} else if a.draining(*st) {
			st.State, st.Reason = worker.Stopping, "has ended; its last checkpoint is on the way to the shared storage"
		}
	}
	return all
}

// committed keeps what the keeper has committed as if the worker itself had told it.
func (a *Agent) committed(c keeper.Commit) {
	told := &agentv1.Checkpoint{Step: int64(c.Step), Path: c.Path, Bytes: c.Bytes} //nolint:gosec // at most 63 bits
	if !c.SavedAt.IsZero() {
		told.SavedUnixMs = c.SavedAt.UnixMilli()
	}
	// As one finished for a worker that died may be, while other ranks have theirs on their nodes' disks.
	if place, is := a.announceLocal(c.Path); is {
		told.Path = place
		if kept := a.sockets.Local(c.Key, told); kept != nil {
			a.reportedLocal(c.Key, kept)
		}
		return
	}
	a.sockets.Committed(c.Key, told)
	a.pushDue(c.Key)
}

// reported takes up what a worker has committed by itself: what need not stay is removed, and it may be copied.
func (a *Agent) reported(key reconcile.Key) {
	a.keeper.Reported(key)
	a.pushDue(key)
}

// problem keeps why what a job saved last is no checkpoint; "": nothing is wrong.
func (a *Agent) problem(key reconcile.Key, text string) { a.sockets.SetProblem(key, text) }

// metricsOf are what a worker last said of its training.
func (a *Agent) metricsOf(key reconcile.Key) map[string]float64 {
	return a.sockets.Notes(key).GetProgress().GetMetrics()
}

// look has the loop look again.
func (a *Agent) look() {
	poke(a.wake)
	a.notify()
}

// resumeOnce looks once for all the job's workers on this node, which would all read the same.
func (a *Agent) resumeOnce(ctx context.Context, key reconcile.Key, as *agentv1.Assignment, env []string) (keeper.Resumed, error) {
	got, err, _ := a.tiers.resuming.Do(fmt.Sprintf("%d-%d", key.Job, key.Epoch), func() (any, error) {
		job := a.keptJob(key, keeper.Retention{})
		job.Environ = func() ([]string, string) { return env, as.GetDir() }
		d := a.tiers.drainer
		if d != nil {
			job.Near = &keeper.Near{Dirs: []string{d.FilesDir(key.Job), d.FileCopiesDir(key.Job)}, Room: d.FilesRoom, Tensors: a.nearTensors(key, as)}
		}
		found, err := keeper.Resume(ctx, job, as.GetNodeRank() == 0)
		if ref, perr := checkpoint.ParseRef(filepath.Base(found.Path)); d != nil && perr == nil && filepath.Dir(found.Path) != d.WholeDir(key.Job) {
			d.UseFiles(key.Job, ref)
		}
		return found, err
	})
	return got.(keeper.Resumed), err
}

// resumeFrom finds the verified checkpoint of files that a worker starts from, "" if there is none of this kind. env is what the worker will see,
// but for that.
func (a *Agent) resumeFrom(ctx context.Context, key reconcile.Key, as *agentv1.Assignment, env []string) (string, error) {
	vctx, cancel := context.WithTimeout(ctx, verifyWithin)
	defer cancel()
	settled, err := a.settle(vctx, key, as)
	if err != nil {
		return "", err
	}
	brought, err := a.fetch(vctx, key, as)
	if err != nil {
		return "", err
	}
	found, err := a.resumeOnce(vctx, key, as, env)
	for _, err := range found.Far {
		a.log.Warn("the checkpoint to start from is not as it should be on the node's own disk", keyArgs(key, "err", err)...)
	}
	for _, s := range found.Skipped {
		a.log.Error("a checkpoint is damaged, an older one is taken: the work since then is repeated",
			keyArgs(key, "checkpoint", s.Ref, "dir", s.Dir, "err", s.Err)...)
		a.setLost(key, s.Ref)
	}
	for _, name := range found.Aside {
		a.log.Warn("files that a program had saved were not committed when its node was lost: they are kept, and no checkpoint", keyArgs(key, "dir", name)...)
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && as.GetResumeFrom() != "" {
		a.log.Error("the checkpoint to resume from could not be verified in time: it is used as it is",
			keyArgs(key, "within", verifyWithin, "checkpoint", as.GetResumeFrom())...)
		return "", nil
	}
	if err == nil {
		err = a.checkNewest(vctx, key, as, env)
	}
	return cmp.Or(found.Path, brought, settled.Path), err
}
