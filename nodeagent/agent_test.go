package nodeagent

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	isRunning = agentv1.WorkerState_WORKER_STATE_RUNNING
	isExited  = agentv1.WorkerState_WORKER_STATE_EXITED
)

func TestLaunchReportAcknowledge(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	r := start(t, testConfig(t, s))
	s.await("hello", func() bool { return s.hello != nil })
	s.mu.Lock()
	h := s.hello
	s.mu.Unlock()
	if h.GetName() != "n1" || h.GetIncarnation() != 1 || len(h.GetGpus()) != 2 || h.GetNodeId() == "" ||
		h.GetBootId() == "" || h.GetCpuMilli() <= 0 || h.GetMemoryBytes() <= 0 || h.GetAddress() != r.Address() {
		t.Errorf("hello: %v", h)
	}
	as := r.gang(7, 1, 2, `echo "rank $RANK of $WORLD_SIZE"; echo oops >&2; cat "$GANGLINE_HOSTFILE"; test -S "$GANGLINE_AGENT_SOCKET"; exit $RANK`)
	s.order(1, 10, as)
	zero := s.awaitWorker("7-1-0", isExited)
	one := s.awaitWorker("7-1-1", isExited)
	if zero.GetExitCode() != 0 || zero.GetSignal() != 0 || one.GetExitCode() != 1 {
		t.Errorf("ends: %v and %v", zero, one)
	}
	if d := cmp.Diff("rank 1 of 2\n127.0.0.1 slots=2\n", r.output("7-1-1", nil)); d != "" {
		t.Error(d)
	}
	if got := r.output("7-1-1", func(q *agentv1.ReadLogsRequest) { q.Stderr = true }); got != "oops\n" {
		t.Errorf("stderr %q", got)
	}
	// Told again and again until it is acknowledged, and never launched a second time.
	s.order(1, 11, as)
	s.set(func() {
		s.desired = &agentv1.Desired{Fence: &agentv1.Fence{Term: 1, Index: 12}, Assignments: []*agentv1.Assignment{as}, Acknowledged: []*agentv1.WorkerKey{zero.GetKey(), one.GetKey()}}
	})
	s.await("forgotten", func() bool { return len(s.workers) == 0 })
	s.order(1, 13, as)
	s.order(1, 14, as, r.script(8, 1, "true"))
	s.awaitWorker("8-1-0", isExited)
	if got := len(s.lines("7-1-0")); got > 2 {
		t.Errorf("worker was launched again: %v", s.lines("7-1-0"))
	}
	contains(t, r.output("7-1-0", nil), "rank 0") // acknowledged, and still there to read
	contains(t, r.output("99-1-0", nil), "NotFound", "job 99 has no output of rank 0")
}

func TestHelloSaysWhatTheNodeIsFor(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.GPUs = "fake:2xA100/1+1xh100-1g.10gb"
	cfg.Labels, cfg.Taints = map[string]string{LabelRack: "r1"}, map[string]string{"team": "vision"}
	start(t, cfg)
	s.await("hello", func() bool { return s.hello != nil })
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := cmp.Diff(cfg.Labels, s.hello.GetLabels()); d != "" {
		t.Errorf("labels: %s", d)
	}
	if d := cmp.Diff(cfg.Taints, s.hello.GetTaints()); d != "" {
		t.Errorf("taints: %s", d)
	}
	var got []string
	for _, g := range s.hello.GetGpus() {
		got = append(got, fmt.Sprintf("%.3s %s %d", g.GetUuid(), g.GetType(), g.GetIsland()))
	}
	if d := cmp.Diff([]string{"GPU a100 0", "GPU a100 1", "MIG h100-1g.10gb 2"}, got); d != "" {
		t.Errorf("GPUs: %s", d)
	}
}

func TestLaunchFailuresAreReported(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	r := start(t, testConfig(t, s))
	missing := r.script(1, 1, "")
	missing.Command = []string{"no-such-program"}
	s.order(1, 1, missing)
	w := s.awaitWorker("1-1-0", isExited)
	if w.GetExitCode() != launchFailed {
		t.Errorf("%v", w)
	}
	contains(t, w.GetMessage(), `run "no-such-program": no such command`)

	empty := r.script(2, 1, "")
	empty.Command = nil
	s.order(1, 2, empty)
	w = s.awaitWorker("2-1-0", isExited)
	contains(t, w.GetMessage(), "the command is empty")

	// The node's disk refuses: a plain file lies where the worker's folder should be.
	if err := os.WriteFile(filepath.Join(r.cfg.StateDir, runDir, "3-1-0"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.order(1, 3, r.script(3, 1, "true"))
	w = s.awaitWorker("3-1-0", isExited)
	contains(t, w.GetMessage(), "launch worker 3-1-0")
	// Acknowledged, they are told no more.
	s.set(func() {
		s.desired = &agentv1.Desired{Fence: &agentv1.Fence{Term: 1, Index: 4}, Acknowledged: []*agentv1.WorkerKey{w.GetKey()}}
	})
	s.await("forgotten", func() bool { return s.find("3-1-0") == nil })
}

func TestStopBeforeStartIsAnEnd(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	r := start(t, testConfig(t, s))
	as := r.script(1, 1, "echo ran")
	as.Stop = &agentv1.Stop{Reason: "cancelled by ann"}
	s.order(1, 1, as)
	w := s.awaitWorker("1-1-0", isExited)
	if w.GetSignal() != 15 || !w.GetStopped() { // or its job would be blamed for it
		t.Errorf("%v", w)
	}
	contains(t, w.GetMessage(), "stopped before it started: cancelled by ann")
}

func TestUndesiredIsFenced(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	r := start(t, testConfig(t, s))
	s.order(1, 1, r.script(1, 1, "sleep 1000"))
	s.awaitWorker("1-1-0", isRunning)
	// The next epoch wants the same GPU: it waits for the older one's end.
	s.order(1, 2, r.script(1, 2, "echo next; sleep 1000"))
	s.awaitWorker("1-2-0", isRunning)
	if w := s.awaitWorker("1-1-0", isExited); w.GetSignal() != 15 {
		t.Errorf("%v", w)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := cmp.Diff([]string{"1-1-0 RUNNING", "1-1-0 EXITED", "1-2-0 RUNNING"}, s.history); d != "" {
		t.Error(d)
	}
}

func TestReadLogs(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	r := start(t, testConfig(t, s))
	gate := filepath.Join(t.TempDir(), "gate")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.order(1, 1, r.script(1, 1, fmt.Sprintf(`i=0; while [ $i -lt 30000 ]; do echo "line $i"; i=$((i+1)); done; while [ -e %s ]; do sleep 0.01; done; printf end`, gate)))
	s.awaitWorker("1-1-0", isRunning)
	followed := make(chan string, 1)
	go func() { followed <- r.output("1-1-0", func(q *agentv1.ReadLogsRequest) { q.Follow = true }) }()
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	all := <-followed
	if !strings.HasPrefix(all, "line 0\n") || !strings.HasSuffix(all, "line 29999\nend") || strings.Count(all, "\n") != 30000 {
		t.Errorf("followed %d bytes, ending in %q", len(all), all[max(0, len(all)-40):])
	}
	s.awaitWorker("1-1-0", isExited)
	for tail, want := range map[int32]string{
		1: "end", 2: "line 29999\nend", 20001: all[strings.Index(all, "line 10000\n"):], 1_000_000: all,
	} {
		if got := r.output("1-1-0", func(q *agentv1.ReadLogsRequest) { q.TailLines = tail }); got != want {
			t.Errorf("tail %d: %d bytes beginning %q, want %d", tail, len(got), got[:min(len(got), 20)], len(want))
		}
	}
}

// TestReaderVanishes: a follower that goes away in the middle leaves no handler behind, for the agent waits for all of
// them when it ends, and the worker runs on.
func TestReaderVanishes(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	r := start(t, testConfig(t, s))
	s.order(1, 1, r.script(1, 1, "while :; do echo line; sleep 0.01; done"))
	s.awaitWorker("1-1-0", isRunning)
	conn, err := grpc.NewClient(r.Address(), r.transport.dial)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := agentv1.NewNodeServiceClient(conn).ReadLogs(t.Context(), &agentv1.ReadLogsRequest{
		Key: &agentv1.WorkerKey{JobId: 1, Epoch: 1}, Follow: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if r.err != nil {
		t.Error(r.err)
	}
	second := start(t, r.cfg)
	s.await("the worker again", func() bool { return s.hello.GetIncarnation() == 2 && s.find("1-1-0").GetState() == isRunning })
	contains(t, second.output("1-1-0", func(q *agentv1.ReadLogsRequest) { q.TailLines = 1 }), "line")
}

func TestHeartbeatsInventoryAndMetrics(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.MetricsListen = "127.0.0.1:0"
	skew := time.Hour
	cfg.Clock = func() time.Time { return time.Now().Add(skew) }
	r := start(t, cfg)
	s.order(1, 1, r.script(1, 1, "sleep 1000"))
	s.awaitWorker("1-1-0", isRunning)
	s.await("load of a busy GPU", func() bool {
		for _, g := range s.beat.GetGpus() {
			if g.GetUtilization() > 0.3 && g.GetUtilization() <= 1 {
				return true
			}
		}
		return false
	})
	s.mu.Lock()
	shown := time.UnixMilli(s.beat.GetAgentUnixMs())
	s.mu.Unlock()
	if d := time.Until(shown); d < skew-time.Minute || d > skew+time.Minute {
		t.Errorf("the agent's clock shows %v from ours, want %v", d, skew)
	}
	resp, err := http.Get("http://" + r.MetricsAddress() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // the test reads
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	contains(t, string(body), `gangline_agent_connected{node="n1"} 1`, `gangline_agent_workers{node="n1",state="running"} 1`,
		`gangline_node_gpus{node="n1",state="held"} 1`, `gangline_agent_worker_launches_total{node="n1",outcome="started"} 1`, "go_goroutines")
	// A GPU falls ill: the node introduces itself anew.
	broken := &sick{Agent: r.Agent}
	broken.breakFirst(t)
	s.await("hello with the sick GPU", func() bool {
		return s.hellos >= 2 && !s.hello.GetGpus()[0].GetHealthy() && s.hello.GetGpus()[0].GetReason() == "fell off the bus"
	})
}

func TestOneAgentPerStateDirAndPort(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	r := start(t, cfg)
	_, err := New(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), worker.ErrInUse.Error()) {
		t.Errorf("second agent on one state directory: %v", err)
	}
	other := testConfig(t, s)
	_, port, _ := strings.Cut(r.Address(), ":")
	other.Listen = "127.0.0.1:" + port
	_, err = New(t.Context(), other)
	if err == nil || !strings.Contains(err.Error(), "stop what uses the port") {
		t.Errorf("second agent on one port: %v", err)
	}
}
