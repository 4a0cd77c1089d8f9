package nodeagent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/usage"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/storage"
	"github.com/gangline/gangline/nodeagent/worker"
)

const (
	// labelLimit is what the checkpoints of the worker's user may take, as the leader said at the launch.
	labelLimit = "checkpoint_limit"
	// roomWithin bounds how long a commit waits for room: on a storage that is slow it goes on without.
	roomWithin = time.Minute
	// roomBehind bounds the making of room itself, which goes on behind the commit: a large checkpoint that must be read before others go takes its time.
	roomBehind = 30 * time.Minute
)

// owner is whose checkpoints a worker's are, and what they may take.
type owner struct {
	user  string
	limit int64 // bytes; 0: no limit
}

// setOwner notes the owner by the worker's labels, or by what the leader says now.
func (r *reconciler) setOwner(st worker.Status) {
	key := reconcile.Key(st.Key)
	o := owner{user: st.Labels[labelUser]}
	o.limit, _ = strconv.ParseInt(st.Labels[labelLimit], 10, 64) // missing: none
	if r.order != nil {
		if w, ok := r.order.by[key]; ok {
			o.limit = w.assignment.GetCheckpointLimitBytes()
		}
	}
	if _, known := r.owners.Swap(key, o); !known && key.Rank == 0 {
		r.measure(o.user) // so that it is known also of who has not saved since this agent began
	}
}

// dropOwners forgets the owners of workers that are gone.
func (a *Agent) dropOwners(present map[reconcile.Key]bool) {
	a.owners.Range(func(key, _ any) bool {
		if !present[key.(reconcile.Key)] {
			a.owners.Delete(key)
		}
		return true
	})
}

// admit makes room for a checkpoint of so many bytes by the limit of the worker's user, the user's oldest ones going first, and says why it may not be
// committed if that is not enough. A storage that cannot be measured refuses nothing.
func (a *Agent) admit(ctx context.Context, key reconcile.Key, bytes int64) error {
	found, ok := a.owners.Load(key)
	if !ok || found.(owner).user == "" {
		return nil
	}
	o := found.(owner)
	if o.limit <= 0 {
		if bytes == 0 { // after a commit
			a.measure(o.user)
		}
		return nil
	}
	job := filepath.Base(checkpointDir("", key.Job))
	made, err := a.makeRoom(ctx, usage.Request{User: o.user, Limit: o.limit, Job: job, Bytes: bytes, Now: a.cfg.Clock()})
	if err != nil {
		a.log.Warn("what a user's checkpoints take cannot be measured: the limit does not hold", "user", o.user, "err", err)
		return nil
	}
	if made.Fits {
		return nil
	}
	this := ""
	if bytes > 0 {
		this = ", and this one has " + checkpoint.BytesText(bytes)
	}
	return fmt.Errorf("checkpoints of user %s take %s of the %s that the policy allows%s; what is left is each job's newest, pinned or in use: "+
		"remove some with `gangline checkpoint rm`, or ask an admin to raise checkpoints.user_limit", o.user, checkpoint.BytesText(made.Left.Bytes), checkpoint.BytesText(o.limit), this)
}

// makeRoom waits a while for room to be made. One at a time is; one that hangs with its storage holds up nobody for longer, and is left behind alone.
func (a *Agent) makeRoom(ctx context.Context, r usage.Request) (usage.Made, error) {
	ctx, cancel := context.WithTimeout(ctx, roomWithin)
	defer cancel()
	select {
	case a.room <- struct{}{}:
	case <-ctx.Done():
		return usage.Made{}, fmt.Errorf("an earlier measurement has not ended: %w", ctx.Err())
	}
	type result struct {
		made usage.Made
		err  error
	}
	done := make(chan result, 1)
	go func() {
		behind, cancel := context.WithTimeout(context.WithoutCancel(ctx), roomBehind)
		defer cancel()
		made, err := a.meter.MakeRoom(behind, r)
		for _, gone := range made.Removed {
			a.log.Warn("a checkpoint was removed: the user's take more than the policy allows", "user", r.User, "of", gone.Job, "checkpoint", gone.Ref, "bytes", gone.Bytes)
		}
		if err == nil {
			a.uses.set(r.User, made.Left, time.Now())
		}
		<-a.room
		done <- result{made, err}
	}()
	select {
	case res := <-done:
		return res.made, res.err
	case <-ctx.Done():
		return usage.Made{}, fmt.Errorf("it takes too long: %w", ctx.Err())
	}
}

// openStorage begins to watch the storage below the checkpoint root.
func (a *Agent) openStorage() {
	a.meter = usage.New(a.cfg.CheckpointRoot)
	if err := os.MkdirAll(a.cfg.CheckpointRoot, 0o755); err != nil { //nolint:gosec // jobs' directories come below it
		a.log.Warn("the checkpoint root cannot be made", "root", a.cfg.CheckpointRoot, "err", err)
	}
	a.storage = storage.New(storage.Config{
		Open: func() (checkpoint.FS, error) { return checkpoint.NewDir(a.cfg.CheckpointRoot) }, Name: a.cfg.Name, Changed: a.storageChanged,
		Free: func() (free, total uint64, err error) {
			var st unix.Statfs_t
			if err := unix.Statfs(a.cfg.CheckpointRoot, &st); err != nil {
				return 0, 0, err
			}
			return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil //nolint:gosec // a size of blocks
		},
	})
}

func (a *Agent) storageChanged(s storage.Status) {
	if s.Problem == "" {
		a.log.Info("the checkpoint storage works again", "root", a.cfg.CheckpointRoot, "took", s.Took)
		return
	}
	a.log.Error("the checkpoint storage has a problem: training goes on", "root", a.cfg.CheckpointRoot, "problem", s.Problem)
}
