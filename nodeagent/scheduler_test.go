package nodeagent

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// scheduler is a scripted leader, or follower, on loopback.
type scheduler struct {
	agentv1.UnimplementedAgentServiceServer
	healthpb.UnimplementedHealthServer
	t       *testing.T
	address string
	server  *grpc.Server
	done    chan struct{}

	mu       sync.Mutex
	change   chan struct{} // closed and replaced at every change
	cluster  string
	redirect *agentv1.Redirect // set: not the leader
	refuse   error
	hang     bool // answers no probe
	desired  *agentv1.Desired
	hello    *agentv1.Hello
	hellos   int
	beat     *agentv1.Heartbeat
	beats    int
	workers  []*agentv1.WorkerStatus
	history  []string // "KEY STATE" as it changed
}

func newScheduler(t *testing.T, opts ...grpc.ServerOption) *scheduler {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scheduler{t: t, address: l.Addr().String(), server: grpc.NewServer(append(opts, grpc.WaitForHandlers(true))...), change: make(chan struct{}), cluster: "c1", done: make(chan struct{})}
	agentv1.RegisterAgentServiceServer(s.server, s)
	healthpb.RegisterHealthServer(s.server, s)
	go func() {
		defer close(s.done)
		_ = s.server.Serve(l)
	}()
	t.Cleanup(s.stop)
	return s
}

func (s *scheduler) stop() {
	s.server.Stop()
	<-s.done
}

// set changes the script.
func (s *scheduler) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.announce()
}

func (s *scheduler) announce() {
	close(s.change)
	s.change = make(chan struct{})
}

// order makes d the desired state.
func (s *scheduler) order(term, index uint64, as ...*agentv1.Assignment) *agentv1.Desired {
	d := &agentv1.Desired{Fence: &agentv1.Fence{Term: term, Index: index}}
	for _, a := range as {
		d.Assignments = append(d.Assignments, proto.CloneOf(a)) // the test may change its own
	}
	s.set(func() { s.desired = d })
	return d
}

// await waits until cond, called with the lock held, is true.
func (s *scheduler) await(what string, cond func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		ok, change := cond(), s.change
		s.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-deadline:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("%s: not within %v; workers %v, history %v", what, patience, s.workers, s.history)
		}
	}
}

// awaitWorker waits until a worker is reported in a state and returns its status.
func (s *scheduler) awaitWorker(key string, state agentv1.WorkerState) *agentv1.WorkerStatus {
	s.t.Helper()
	var found *agentv1.WorkerStatus
	s.await(fmt.Sprintf("worker %s %v", key, state), func() bool {
		found = s.find(key)
		return found != nil && found.GetState() == state
	})
	return found
}

func (s *scheduler) find(key string) *agentv1.WorkerStatus {
	for _, w := range s.workers {
		if keyText(w.GetKey()) == key {
			return w
		}
	}
	return nil
}

func keyText(k *agentv1.WorkerKey) string {
	return fmt.Sprintf("%d-%d-%d", k.GetJobId(), k.GetEpoch(), k.GetRank())
}

// Connect follows the script.
func (s *scheduler) Connect(stream grpc.BidiStreamingServer[agentv1.ConnectRequest, agentv1.ConnectResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s.take(first)
	s.mu.Lock()
	redirect, refuse, cluster := s.redirect, s.refuse, s.cluster
	s.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	if redirect != nil {
		return stream.Send(&agentv1.ConnectResponse{Message: &agentv1.ConnectResponse_Redirect{Redirect: redirect}})
	}
	err = stream.Send(&agentv1.ConnectResponse{Message: &agentv1.ConnectResponse_Welcome{Welcome: &agentv1.Welcome{
		ClusterId: cluster, HeartbeatMs: 50, LeaseMs: 3000, Servers: []string{s.address},
	}}})
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			msg, err := stream.Recv()
			if err != nil {
				return
			}
			s.take(msg)
		}
	}()
	var sent *agentv1.Desired
	for {
		s.mu.Lock()
		desired, change := s.desired, s.change
		s.mu.Unlock()
		if desired != sent {
			sent = desired
			if err := stream.Send(&agentv1.ConnectResponse{Message: &agentv1.ConnectResponse_Desired{Desired: desired}}); err != nil {
				return err
			}
		}
		select {
		case <-change:
		case <-ended:
			return nil
		}
	}
}

func (s *scheduler) take(msg *agentv1.ConnectRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m := msg.GetMessage().(type) {
	case *agentv1.ConnectRequest_Hello:
		s.hello, s.hellos = m.Hello, s.hellos+1
		s.note(m.Hello.GetWorkers())
	case *agentv1.ConnectRequest_Heartbeat:
		s.beat, s.beats = m.Heartbeat, s.beats+1
	case *agentv1.ConnectRequest_Report:
		s.note(m.Report.GetWorkers())
	}
	s.announce()
}

func (s *scheduler) note(workers []*agentv1.WorkerStatus) {
	for _, w := range workers {
		line := keyText(w.GetKey()) + " " + strings.TrimPrefix(w.GetState().String(), "WORKER_STATE_")
		if old := s.find(keyText(w.GetKey())); old == nil || old.GetState() != w.GetState() {
			s.history = append(s.history, line)
		}
	}
	s.workers = workers
}

// Check answers probes unless the script says that the server hangs.
func (s *scheduler) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	s.mu.Lock()
	hang := s.hang
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// lines returns the history of one worker.
func (s *scheduler) lines(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.history), func(l string) bool { return !strings.HasPrefix(l, key+" ") })
}
