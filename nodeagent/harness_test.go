package nodeagent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	superviseArg = "gangline-test-supervise"
	// patience is how long real processes may take on a loaded machine before a test calls it a failure.
	patience = 30 * time.Second
)

// TestMain lets the test binary be the supervisor of its own workers.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == superviseArg {
		os.Exit(worker.Supervise(os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

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

// logBuffer is a log that a test may read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// running is an agent under test.
type running struct {
	*Agent
	t      *testing.T
	log    *logBuffer
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // valid after ended is closed
}

func testConfig(t *testing.T, servers ...*scheduler) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Name, cfg.StateDir, cfg.GPUs = "n1", t.TempDir(), "fake:2xH100"
	cfg.Listen, cfg.MetricsListen = "127.0.0.1:0", ""
	cfg.Supervisor = []string{"/proc/self/exe", superviseArg}
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, s.address)
	}
	return cfg
}

// start runs an agent until its stop, or the test's end; then every worker in the state directory is ended.
func start(t *testing.T, cfg Config) *running {
	t.Helper()
	r := &running{t: t, log: &logBuffer{}, ended: make(chan struct{})}
	cfg.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	agent, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Agent = agent
	agent.refusedWait = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.ended)
		r.err = agent.Run(ctx)
	}()
	t.Cleanup(func() {
		r.stop()
		endWorkers(t, cfg)
		if t.Failed() {
			t.Logf("agent's log:\n%s", r.log)
		}
	})
	return r
}

// stop ends the agent, not its workers.
func (r *running) stop() {
	r.cancel()
	<-r.ended
}

// endWorkers kills what a test left running, so that nothing outlives it.
func endWorkers(t *testing.T, cfg Config) {
	t.Helper()
	m, err := worker.Open(cfg.StateDir, worker.Config{Supervisor: cfg.Supervisor})
	if err != nil {
		t.Errorf("end workers: %v", err)
		return
	}
	defer m.Close() //nolint:errcheck // the test is over
	deadline := time.After(patience)
	for {
		left := 0
		for _, st := range m.Workers() {
			if st.State != worker.Exited {
				left++
				_ = m.Stop(st.Key, worker.Stop{Reason: "the test is over"})
			}
		}
		if left == 0 {
			return
		}
		select {
		case <-m.Changed():
		case <-deadline:
			t.Error("workers outlive the test")
			return
		}
	}
}

// script is an assignment of one worker of a one-node gang that runs a shell script.
func (r *running) script(job, epoch uint64, text string) *agentv1.Assignment {
	return r.gang(job, epoch, 1, text)
}

// gang is an assignment with n workers on this node, each with the GPU of its rank.
func (r *running) gang(job, epoch uint64, n int32, text string) *agentv1.Assignment {
	gpus := r.monitor.Latest().GPUs
	a := &agentv1.Assignment{
		JobId: job, Epoch: epoch, JobName: "test", WorldSize: n, Command: []string{"/bin/sh", "-c", text},
		Nodes: []*agentv1.GangNode{{Host: "127.0.0.1", Gpus: n, Workers: n}}, MasterPort: 29500,
	}
	for rank := range n {
		a.Workers = append(a.Workers, &agentv1.AssignedWorker{Rank: rank, LocalRank: rank, GpuUuids: []string{gpus[rank].UUID}})
	}
	return a
}

// output reads a worker's log through the agent's service.
func (r *running) output(key string, change func(*agentv1.ReadLogsRequest)) string {
	r.t.Helper()
	var k agentv1.WorkerKey
	if _, err := fmt.Sscanf(key, "%d-%d-%d", &k.JobId, &k.Epoch, &k.Rank); err != nil {
		r.t.Fatal(err)
	}
	conn, err := grpc.NewClient(r.Address(), r.transport.dial)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test reads
	req := &agentv1.ReadLogsRequest{Key: &k}
	if change != nil {
		change(req)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	stream, err := agentv1.NewNodeServiceClient(conn).ReadLogs(ctx, req)
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	for {
		msg, err := stream.Recv()
		if err != nil {
			if err.Error() != "EOF" {
				b.WriteString(err.Error())
			}
			return b.String()
		}
		b.Write(msg.GetData())
	}
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}

// lines returns the history of one worker.
func (s *scheduler) lines(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.history), func(l string) bool { return !strings.HasPrefix(l, key+" ") })
}
