package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// welcomeWait bounds the wait for Welcome: the leader writes the node to its log first, and a whole cluster may
	// come at once.
	welcomeWait = 10 * time.Second
	// probeWait is how long a server may leave a health probe unanswered before the agent looks for another leader.
	// With a probe each heartbeat a hung server is noticed within 3 s. (HTTP/2 keepalive of grpc-go allows no period
	// under 10 s, and its answer says only that the peer's network stack lives.)
	probeWait = 2 * time.Second
	// Bounds of the heartbeat that a leader may ask for.
	minHeartbeat     = 50 * time.Millisecond
	maxHeartbeat     = 30 * time.Second
	defaultHeartbeat = time.Second
	// reportEvery is the longest silence about workers; reportGap the shortest, so that a burst of exits is one report.
	reportEvery = 10 * time.Second
	reportGap   = 20 * time.Millisecond
	// maxOrder bounds a message of the leader: a few hundred assignments with gangs of thousands of peers.
	maxOrder = 64 << 20
)

// errHung ends a session whose server does not answer probes.
var errHung = errors.New("the server answers nothing: it hangs, or cannot be reached")

// session is one stream to one server.
type session struct {
	*Agent
	server string
	stream grpc.BidiStreamingClient[agentv1.ConnectRequest, agentv1.ConnectResponse]
	health healthpb.HealthClient

	// What was sent last; for the sending goroutine.
	inventory  []*agentv1.GPU
	workers    []*agentv1.WorkerStatus
	reportedAt time.Time
	sequence   uint64
}

// session opens a stream to address and serves it until it breaks; the error says why it ended, never nil. welcomed
// tells whether the server took us in.
func (a *Agent) session(ctx context.Context, address string, list *servers) (welcomed bool, err error) {
	conn, err := grpc.NewClient(address, a.transport.dial,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxOrder)))
	if err != nil {
		return false, fmt.Errorf("dial scheduler %s: %w", address, err)
	}
	defer conn.Close() //nolint:errcheck // the stream's error is the one that tells
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)

	opening := time.AfterFunc(welcomeWait, func() { cancel(errors.New("no welcome in time")) })
	defer opening.Stop()
	s := &session{Agent: a, server: address, health: healthpb.NewHealthClient(conn)}
	wg.Go(func() { s.probe(ctx, cancel) }) // before the stream, which a silent server would not let us open
	if s.stream, err = agentv1.NewAgentServiceClient(conn).Connect(ctx); err != nil {
		return false, sessionError(ctx, address, err)
	}
	a.uses.tellAgain()
	if err := s.sendHello(); err != nil && !errors.Is(err, io.EOF) { // io.EOF: Recv knows why
		return false, sessionError(ctx, address, err)
	}
	interval := make(chan time.Duration, 1)
	wg.Go(func() {
		if err := s.send(ctx, interval); err != nil && !errors.Is(err, io.EOF) {
			cancel(err)
		}
	})
	defer a.setConnected(false)
	for {
		msg, err := s.stream.Recv()
		if err != nil {
			return welcomed, sessionError(ctx, address, err)
		}
		switch m := msg.GetMessage().(type) {
		case *agentv1.ConnectResponse_Welcome:
			if err := a.id.join(address, m.Welcome.GetClusterId()); err != nil {
				return welcomed, err
			}
			if opening.Stop(); !welcomed {
				welcomed = true
				list.learn(m.Welcome.GetServers())
				interval <- heartbeatOf(m.Welcome)
				a.setConnected(true)
				a.log.Info("connected to the leader", "server", address, "cluster", m.Welcome.GetClusterId())
			}
		case *agentv1.ConnectResponse_Desired:
			if welcomed {
				s.receive(m.Desired)
			}
		case *agentv1.ConnectResponse_Redirect:
			return welcomed, &redirectError{leader: m.Redirect.GetLeaderAddress()}
		}
	}
}

// sessionError finds the most telling reason for a session's end.
func sessionError(ctx context.Context, address string, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if status.Code(err) == codes.FailedPrecondition {
		// The server saw in our Hello that the node belongs elsewhere.
		return &WrongClusterError{Server: address, Detail: status.Convert(err).Message()}
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("scheduler %s ended the stream", address)
	}
	return fmt.Errorf("scheduler %s: %w", address, err)
}

func heartbeatOf(w *agentv1.Welcome) time.Duration {
	if w.GetHeartbeatMs() <= 0 {
		return defaultHeartbeat
	}
	return min(max(milliseconds(w.GetHeartbeatMs()), minHeartbeat), maxHeartbeat)
}

// receive hands an order to the loop, unless it is older than what was obeyed.
func (s *session) receive(d *agentv1.Desired) {
	if err := s.id.highest().Admits(fenceOf(d)); err != nil {
		s.log.Warn("refused an order", "server", s.server, "order", describe(d), "why", err)
		return
	}
	s.log.Debug("order", "what", describe(d))
	s.orders.put(d)
	poke(s.wake)
}

// send sends heartbeats, reports and news of the inventory until the session ends. Only it sends after the Hello.
func (s *session) send(ctx context.Context, interval <-chan time.Duration) error {
	every := defaultHeartbeat
	select {
	case every = <-interval:
	case <-ctx.Done():
		return nil
	}
	beat := time.NewTimer(0)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			err = s.beat()
			beat.Reset(every*9/10 + rand.N(every/5))
		case <-s.news:
			if !sleep(ctx, reportGap-time.Since(s.reportedAt)) {
				return nil
			}
			err = s.report(false)
		}
		if err != nil {
			return err
		}
	}
}

// beat sends a sign of life, and what has changed without anybody saying so: the inventory, progress.
func (s *session) beat() error {
	s.sequence++
	err := s.stream.Send(&agentv1.ConnectRequest{
		Message: &agentv1.ConnectRequest_Heartbeat{Heartbeat: s.heartbeat(s.sequence)},
	})
	if err != nil {
		return err
	}
	same := slices.EqualFunc(s.inventory, inventory(s.monitor.Latest()), func(x, y *agentv1.GPU) bool { return proto.Equal(x, y) })
	if !same {
		s.log.Info("the node's GPUs changed")
		return s.sendHello()
	}
	return s.report(time.Since(s.reportedAt) >= reportEvery)
}

// report sends all workers if something changed since the last time, or if it is due.
func (s *session) report(due bool) error {
	now := s.statuses()
	if !due && slices.EqualFunc(now, s.workers, func(x, y *agentv1.WorkerStatus) bool { return proto.Equal(x, y) }) {
		return nil
	}
	s.workers, s.reportedAt = now, time.Now()
	return s.stream.Send(&agentv1.ConnectRequest{
		Message: &agentv1.ConnectRequest_Report{Report: &agentv1.Report{Workers: now, AgentUnixMs: s.cfg.Clock().UnixMilli()}},
	})
}

func (s *session) sendHello() error {
	hello := s.hello()
	s.inventory, s.workers, s.reportedAt = hello.GetGpus(), hello.GetWorkers(), time.Now()
	return s.stream.Send(&agentv1.ConnectRequest{Message: &agentv1.ConnectRequest_Hello{Hello: hello}})
}

// probe asks the server for a sign of life on the stream's own connection, since a hung server still takes in data. Any
// answer is one, also that there is no health service.
func (s *session) probe(ctx context.Context, cancel context.CancelCauseFunc) {
	for sleep(ctx, defaultHeartbeat) {
		probe, stop := context.WithTimeout(ctx, probeWait)
		_, err := s.health.Check(probe, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
		stop()
		// Also when the server itself says so: it counts the same deadline, sometimes a little faster.
		if ctx.Err() == nil && status.Code(err) == codes.DeadlineExceeded {
			cancel(errHung)
			return
		}
	}
}
