package replica

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/gangline/gangline/scheduler/cluster"
)

// leadership is one stretch of time in which this server leads.
type leadership struct {
	term  uint64        // set before ready is closed
	ready chan struct{} // closed once all earlier entries are applied and the cluster has an identity
	lost  chan struct{} // closed at the end
}

// runLeadership is the only reader of Raft's notifications. It never waits for
// anything else, because Raft's own loop waits for it.
func (r *Replica) runLeadership(notify <-chan bool) {
	defer close(r.leadDone)
	var current *leadership
	ended := r.ctx.Done()
	end := func() {
		if current == nil {
			return
		}
		r.leading.Store(nil)
		close(current.lost)
		current = nil
		r.leadChanged.wake()
	}
	for {
		select {
		case leads := <-notify:
			end()
			if leads && r.running() {
				l := &leadership{ready: make(chan struct{}), lost: make(chan struct{})}
				current = l
				r.tasks.start(func() { r.takeOver(l) })
				r.leading.Store(l)
				r.leadChanged.wake()
			}
		case <-ended: // by failure or Close; keep reading, or Raft's loop would block
			end()
			ended = nil
		case <-r.raftDone:
			end()
			return
		}
	}
}

// takeOver makes a new leadership ready, trying until it is lost.
func (r *Replica) takeOver(l *leadership) {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	r.tasks.start(func() {
		select {
		case <-l.lost:
			cancel()
		case <-ctx.Done():
		}
	})
	for {
		err := r.prepare(ctx, l)
		if err == nil {
			close(l.ready)
			r.log.Info("this server leads", "term", l.term, "index", r.State().Index())
			return
		}
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("new leader is not ready yet, trying again", "error", err)
		select {
		case <-time.After(takeoverRetry):
		case <-ctx.Done():
			return
		}
	}
}

// prepare is one attempt: apply all earlier entries, learn the term, and give a
// new cluster its identity.
func (r *Replica) prepare(ctx context.Context, l *leadership) error {
	ctx, cancel := context.WithTimeout(ctx, takeoverTimeout)
	defer cancel()
	term := r.raft.CurrentTerm()
	if err := r.await(ctx, func() raft.Future { return r.raft.Barrier(enqueueTimeout) }); err != nil {
		return fmt.Errorf("apply earlier entries: %w", err)
	}
	// The same term before and after: the barrier committed in it, so this
	// server led in it.
	if r.raft.CurrentTerm() != term {
		return errors.New("the term changed meanwhile")
	}
	if r.State().Version() == 0 {
		p, err := newProposal([]cluster.Command{&cluster.Init{ClusterID: newClusterID(), Version: cluster.Version}})
		if err != nil {
			return err
		}
		if _, _, err := r.submit(ctx, p); err != nil {
			return fmt.Errorf("give the cluster its identity: %w", err)
		}
	}
	l.term = term
	return nil
}

func newClusterID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// readyLeadership waits until this server's leadership is ready.
func (r *Replica) readyLeadership(ctx context.Context) (*leadership, error) {
	if err := r.Err(); err != nil {
		return nil, err
	}
	l := r.leading.Load()
	if l == nil {
		return nil, r.notLeader()
	}
	select {
	case <-l.ready:
		return l, nil
	default:
	}
	select {
	case <-l.ready:
		return l, nil
	case <-l.lost:
		return nil, r.notLeader()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the new leader to be ready: %w", ctx.Err())
	}
}

// notLeader names the leader, if it is another server.
func (r *Replica) notLeader() error {
	select {
	case <-r.stopping:
		return ErrClosed
	default:
	}
	id, address := r.Leader()
	if id == r.cfg.ID {
		return &NotLeaderError{}
	}
	return &NotLeaderError{LeaderID: id, LeaderAddress: address}
}

// Lead calls f each time this server has become leader, has applied all earlier
// entries and the cluster has its identity. Term is Raft's, and only grows. It
// cancels f's context when leadership is lost and waits for f to return before
// it calls f again. It returns ctx's error, the replica's failure, ErrClosed,
// or f's error if f failed while still leading. Call it once at a time.
func (r *Replica) Lead(ctx context.Context, f func(ctx context.Context, term uint64) error) error {
	var last *leadership
	for {
		changed := r.leadChanged.wait()
		l := r.leading.Load()
		if l == nil || l == last {
			if err := r.waitFor(ctx, changed); err != nil {
				return err
			}
			continue
		}
		last = l
		select {
		case <-l.lost:
			continue
		case <-ctx.Done():
			return ctx.Err()
		case <-l.ready:
		}
		if err := r.leadOnce(ctx, l, f); err != nil {
			return err
		}
	}
}

func (r *Replica) leadOnce(ctx context.Context, l *leadership, f func(context.Context, uint64) error) error {
	inner, cancel := context.WithCancel(ctx)
	watch := make(chan struct{})
	go func() {
		defer close(watch)
		select {
		case <-l.lost:
			cancel()
		case <-inner.Done():
		}
	}()
	err := f(inner, l.term)
	cancel()
	<-watch
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case <-l.lost:
		r.log.Info("this server leads no longer", "term", l.term)
		return nil
	default:
		return err
	}
}

// TransferLeadership hands leadership to the most caught-up follower and waits
// until this server no longer leads. It returns *NotLeaderError if it does not
// lead. Callers' proposals in flight may end as ErrUnknownOutcome.
func (r *Replica) TransferLeadership(ctx context.Context) error {
	l := r.leading.Load()
	if l == nil {
		return r.notLeader()
	}
	if len(r.cfg.Servers) == 1 {
		return errors.New("transfer leadership: this is the only server")
	}
	if err := r.await(ctx, func() raft.Future { return r.raft.LeadershipTransfer() }); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	select {
	case <-l.lost:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("transfer leadership: %w", ctx.Err())
	}
}
