package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/gangline/gangline/scheduler/cluster"
)

// State returns the newest applied state at once. It may be older than the
// cluster's on a server that does not lead. It is immutable and shared: read
// it, but call neither Apply nor Snapshot on it. Safe for concurrent use.
func (r *Replica) State() *cluster.State { return r.fsm.published.Load() }

// Updated returns a channel that is closed after the state has next changed.
// Take it before looking at State. Safe for concurrent use.
func (r *Replica) Updated() <-chan struct{} { return r.fsm.updated.wait() }

// WaitIndex waits until State().Index() is at least index. Errors: ctx's, the
// replica's failure, ErrClosed. Safe for concurrent use.
func (r *Replica) WaitIndex(ctx context.Context, index uint64) error {
	for {
		updated := r.Updated()
		if r.State().Index() >= index {
			return nil
		}
		if err := r.waitFor(ctx, updated); err != nil {
			return err
		}
	}
}

// waitFor waits for a notification, or returns why that is pointless.
func (r *Replica) waitFor(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.failed:
		return r.Err()
	case <-r.stopping:
		return ErrClosed
	}
}

// readers gathers callers of Read that share one check of leadership.
type readers struct {
	mu   sync.Mutex
	next *readBatch // not begun yet, or nil
	kick chan struct{}
}

type readBatch struct {
	done chan struct{}
	err  error // before done is closed
}

// join adds the caller to the check that begins next.
func (q *readers) join() *readBatch {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		q.next = &readBatch{done: make(chan struct{})}
		q.kick <- struct{}{} // has room: one token for each batch, one batch at a time
	}
	return q.next
}

// begin closes the batch to newcomers: they may have seen later writes.
func (q *readers) begin() *readBatch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.next
	q.next = nil
	return b
}

// Read returns a state that holds every change which any server acknowledged
// before the call (a linearizable read). Only the leader answers: it confirms
// with a majority that it still leads, once for all callers waiting at that
// moment. Errors: *NotLeaderError, ctx's, the replica's failure, ErrClosed.
// Safe for concurrent use.
func (r *Replica) Read(ctx context.Context) (*cluster.State, error) {
	if _, err := r.readyLeadership(ctx); err != nil {
		return nil, err
	}
	b := r.readers.join()
	select {
	case <-b.done:
	case <-ctx.Done():
		return nil, fmt.Errorf("read: %w", ctx.Err())
	case <-r.stopping:
		return nil, ErrClosed
	}
	if b.err != nil {
		return nil, b.err
	}
	return r.State(), nil
}

func (r *Replica) runReader() {
	for {
		select {
		case <-r.readers.kick:
			b := r.readers.begin()
			b.err = r.verify()
			close(b.done)
		case <-r.stopping:
			return
		}
	}
}

// verify is Raft's ReadIndex: note what is committed, make sure that this
// server still leads in the same term, and wait until that much is applied.
func (r *Replica) verify() error {
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.ProposeTimeout)
	defer cancel()
	l, err := r.readyLeadership(ctx)
	if err != nil {
		return err
	}
	committed := r.raft.CommitIndex()
	err = r.await(ctx, func() raft.Future { return r.raft.VerifyLeader() })
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
		return r.notLeader()
	case err != nil:
		return fmt.Errorf("read: confirm leadership: %w", err)
	case r.raft.CurrentTerm() != l.term:
		return r.notLeader()
	}
	return r.waitApplied(ctx, committed)
}

// waitApplied waits until the FSM has seen every entry up to index that Raft
// shows it. Raft keeps its own entries (no-ops, barriers) from the FSM, so the
// last one that counts is looked up.
func (r *Replica) waitApplied(ctx context.Context, index uint64) error {
	for ; index > r.fsm.applied.Load(); index-- {
		var l raft.Log
		if err := r.logs.GetLog(index, &l); err != nil {
			break // compacted: it is part of a snapshot of this FSM
		}
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			break
		}
	}
	for {
		updated := r.Updated()
		if r.fsm.applied.Load() >= index {
			return nil
		}
		if err := r.waitFor(ctx, updated); err != nil {
			return err
		}
	}
}
