package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/keeper"
	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// errOlder says that a job which asks for it does not start from an older checkpoint than it has committed.
var errOlder = errors.New("the newest checkpoint that the scheduler has recorded as committed is not on the storage any more")

// checkNewest compares the newest checkpoint that is there with the newest that the scheduler has recorded as committed. Where that is gone (a disk was lost, somebody has removed
// it, or put an older state of the storage back) the log says so loudly, and the leader hears of it with the worker of rank 0; a job whose environment says
// GANGLINE_CHECKPOINT_OLDER=refuse does not start. What a program has reported under a name of its own cannot be compared.
func (a *Agent) checkNewest(ctx context.Context, key reconcile.Key, as *agentv1.Assignment, env []string) error {
	recorded, err := checkpoint.ParseRef(filepath.Base(as.GetResumeFrom()))
	if err != nil || recorded.Epoch >= key.Epoch {
		return nil //nolint:nilerr // the job has none yet, or none of ours
	}
	strict := as.GetEnv()[checkpoint.EnvOlder] == checkpoint.RefuseOlder
	job := a.keptJob(key, keeper.Retention{})
	job.Environ = func() ([]string, string) { return env, as.GetDir() }
	newest, err := keeper.Newest(ctx, job, strict)
	if err != nil && strict {
		return fmt.Errorf("look whether %s is still there: %w", recorded, err)
	}
	if err != nil {
		a.log.Warn("whether the newest checkpoint that was committed is still there cannot be looked at", keyArgs(key, "checkpoint", recorded, "err", err)...)
		return nil
	}
	if newest.Compare(recorded) >= 0 {
		return nil
	}
	older := &agentv1.OlderStart{
		CommittedStep: int64(recorded.Step), ResumedStep: int64(newest.Step), FromNothing: newest.Epoch == 0, //nolint:gosec // at most 63 bits
	}
	from := newest.String()
	if older.GetFromNothing() {
		from = "nothing"
	}
	if strict {
		return fmt.Errorf("%w: it is %s, and what is there is %s: bring it back, or submit the job without %s=%s to go on from there",
			errOlder, recorded, from, checkpoint.EnvOlder, checkpoint.RefuseOlder)
	}
	a.log.Error("the newest checkpoint that was committed is not on the storage any more, an older one is taken: the work since then is repeated",
		keyArgs(key, "committed", recorded, "resumes from", from)...)
	a.tiers.mu.Lock()
	defer a.tiers.mu.Unlock()
	if len(a.tiers.older) >= maxPending {
		clear(a.tiers.older) // of launches that never came
	}
	a.tiers.older[reconcile.Key{Job: key.Job, Epoch: key.Epoch}] = older
	return nil
}
