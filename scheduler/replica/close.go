package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// Failed returns a channel that is closed when the replica can never go on: an
// entry that this release does not know, a broken disk, another cluster's data.
// Err then says why. The process should exit with that message; until it does,
// this server neither votes nor leads. Safe for concurrent use.
func (r *Replica) Failed() <-chan struct{} { return r.failed }

// Err returns why the replica failed, or nil. Safe for concurrent use.
func (r *Replica) Err() error {
	select {
	case <-r.failed:
		return r.failure
	default:
		return nil
	}
}

// fail records the first failure. It is called from Raft's goroutines and does
// not block; runFailure does the rest.
func (r *Replica) fail(err error) {
	r.failOnce.Do(func() {
		r.log.Error("this server stops", "error", err)
		r.failure = err
		close(r.failed)
	})
}

// running reports whether neither fail nor Close was called.
func (r *Replica) running() bool {
	select {
	case <-r.failed:
		return false
	case <-r.stopping:
		return false
	default:
		return true
	}
}

// runFailure takes a failed server out of the cluster.
func (r *Replica) runFailure() {
	select {
	case <-r.stopping:
		return
	case <-r.failed:
	}
	if r.raft.State() == raft.Leader && r.disk.stuckFor() < r.cfg.DiskStall { // else its loop would not hear it
		if err := r.yield(); err != nil {
			r.log.Warn("could not hand leadership over; the others will notice by themselves", "error", err)
		}
	}
	r.cancel()
	r.raft.Shutdown() // Close waits for its end
}

// Close hands leadership over if this server leads, stops Raft and closes
// storage and connections. It takes no longer than about ten seconds; if the
// disk hangs it gives up waiting and says so, and the process should exit.
// Calling it again returns the same error. Not for concurrent use with Lead's
// function holding on for ever: Lead's context ends first.
func (r *Replica) Close() error {
	r.closeOnce.Do(func() { r.closeErr = r.close() })
	return r.closeErr
}

func (r *Replica) close() error {
	if r.running() && r.leading.Load() != nil && len(r.cfg.Servers) > 1 {
		if err := r.yield(); err != nil {
			r.log.Warn("could not hand leadership over; the others will notice by themselves", "error", err)
		}
	}
	close(r.stopping)
	r.cancel()
	r.metrics.unregister()
	// Requests to Raft end before Raft does: it forgets some of them when it stops.
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := r.tasks.stop(drain); err != nil {
		r.log.Warn("requests to Raft are stuck", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- r.raft.Shutdown().Error() }() // ends with Raft; outlives Close only if the disk hangs
	var errs []error
	select {
	case err := <-stopped:
		errs = append(errs, err)
	case <-ctx.Done():
		close(r.raftDone)
		<-r.leadDone
		return fmt.Errorf("close: Raft has not stopped within %s, its disk under %s seems to hang: exit the process", shutdownTimeout, r.cfg.Dir)
	}
	close(r.raftDone)
	<-r.leadDone
	errs = append(errs, r.peers.Close())
	if r.dir != nil {
		errs = append(errs, r.dir.close())
	}
	return errors.Join(errs...)
}
