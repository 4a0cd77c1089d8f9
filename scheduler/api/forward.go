package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// How a call finds the leader.
const (
	// leaderWait is how long a call is tried again while no leader answers: a
	// few elections. The caller's deadline may end it sooner.
	leaderWait = 5 * time.Second
	// attemptLimit is how long one try may take, so that a leader which hangs
	// cannot hold a call without a deadline.
	attemptLimit = 10 * time.Second
	// retryPause is between two tries: a fraction of an election, so that the
	// first write after a failover is not much later than the new leader.
	retryPause = 25 * time.Millisecond
	// maxHops is how often a call may be forwarded. Two: the first server may
	// have known an old leader, which knows the new one.
	maxHops = 2
	// maxConns bounds the connections to other servers.
	maxConns = 64
)

// viaLeader runs local if this server leads, else remote on the leader, and
// tries again for a while when there is no leader or a try's outcome is
// unknown.
func viaLeader[T any](ctx context.Context, s *Service,
	local func(context.Context) (T, error),
	remote func(context.Context, schedulerv1.SchedulerServiceClient) (T, error),
) (T, error) {
	patience := leaderWait
	if len(forwardedBy(ctx)) > 0 {
		patience = 0 // the server that the client asked tries again, knowing more by then
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		out, err := attempt(ctx, s, local, remote)
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // whatever the try made of it
		}
		if err == nil || ctx.Err() != nil || !retriable(err) {
			return out, toStatus(s.log, err)
		}
		pause := time.NewTimer(retryPause)
		select {
		case <-pause.C:
		case <-s.closing.Done():
			pause.Stop()
			return out, toStatus(s.log, errClosing)
		case <-wait.Done():
			pause.Stop()
			return out, toStatus(s.log, err)
		}
	}
}

// attempt tries once, here or on the leader that this server knows now.
func attempt[T any](ctx context.Context, s *Service,
	local func(context.Context) (T, error),
	remote func(context.Context, schedulerv1.SchedulerServiceClient) (T, error),
) (T, error) {
	var zero T
	try, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	id, address := s.cfg.Replica.Leader()
	if id == s.cfg.ServerID && id != "" {
		if s.cfg.Replica.State().Version() == 0 {
			return zero, errNoLeader // it leads, but has not given the cluster its identity yet
		}
		out, err := local(try)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = fmt.Errorf("%w: no answer from most servers within %s", ErrUnknownOutcome, attemptLimit)
		}
		return out, err
	}
	if id == "" || address == "" {
		return zero, errNoLeader
	}
	hops := forwardedBy(ctx)
	if len(hops) >= maxHops {
		return zero, fmt.Errorf("%w: forwarded by %v", errNoLeader, hops)
	}
	conn, err := s.peers.get(address)
	if err != nil {
		return zero, fmt.Errorf("connect to the leader %s at %s: %w", id, address, err)
	}
	// A leader that is replaced while it hangs must not hold the call.
	defer s.cancelOnNewLeader(address, cancel).stop()
	for _, hop := range append(hops[:len(hops):len(hops)], s.cfg.ServerID) {
		try = metadata.AppendToOutgoingContext(try, forwardedKey, hop)
	}
	out, err := remote(try, schedulerv1.NewSchedulerServiceClient(conn))
	if ctx.Err() == nil {
		switch status.Code(err) {
		case codes.Canceled, codes.DeadlineExceeded:
			err = fmt.Errorf("%w: the leader %s did not answer", ErrUnknownOutcome, id)
		case codes.Unavailable:
			err = status.Errorf(codes.Unavailable, "the leader %s at %s does not answer: %s; try again", id, address, status.Convert(err).Message())
		default:
		}
	}
	return out, err
}

// leaderPoll is how often a forwarded call looks whether its leader still leads.
const leaderPoll = 100 * time.Millisecond

// cancelOnNewLeader cancels a try once another server, or none, leads.
func (s *Service) cancelOnNewLeader(address string, cancel context.CancelFunc) *poll {
	return startPoll(leaderPoll, func() (again bool) {
		if _, now := s.cfg.Replica.Leader(); now != address {
			cancel()
			return false
		}
		return true
	})
}

// read gives a linearizable state: its index is at least that of every call
// that was answered before this one began. It is for the leader.
func (s *Service) read(ctx context.Context, stale bool) (*cluster.State, error) {
	if stale {
		return s.cfg.Replica.State(), nil
	}
	return s.cfg.Replica.Read(ctx)
}

// reconnect is the pace at which lost connections are tried again: quick,
// since the other end is a server or agent that restarts within a second.
func reconnect() grpc.ConnectParams {
	return grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
		MinConnectTimeout: 2 * time.Second,
	}
}

// connCache keeps one connection for each address.
type connCache struct {
	opts  []grpc.DialOption
	limit int

	mu     sync.Mutex // guards what follows
	closed bool
	conns  map[string]*grpc.ClientConn
}

func newConnCache(opts []grpc.DialOption, limit int) *connCache {
	return &connCache{opts: withDefaults(opts), limit: limit, conns: map[string]*grpc.ClientConn{}}
}

// get returns a connection, which may still have to be established.
func (c *connCache) get(address string) (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if conn := c.conns[address]; conn != nil {
		return conn, nil
	}
	if c.closed { // a call that is still under way would leave the connection open for good
		return nil, errClosing
	}
	if len(c.conns) >= c.limit {
		return nil, status.Errorf(codes.ResourceExhausted, "%d connections are open, the most", c.limit)
	}
	conn, err := grpc.NewClient(address, c.opts...)
	if err == nil {
		c.conns[address] = conn
	}
	return conn, err
}

// close closes all connections; get gives none any more.
func (c *connCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close() // it only fails if it was closed before
	}
	c.conns, c.closed = map[string]*grpc.ClientConn{}, true
}
