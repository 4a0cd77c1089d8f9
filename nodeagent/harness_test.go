package nodeagent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

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
	if len(os.Args) > 1 && os.Args[1] == saveArg {
		if err := saveOnce(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	goleak.VerifyTestMain(m)
}

// logBuffer is a log that a test may read while it is written.
type logBuffer struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	change chan struct{} // closed and replaced at every write
}

func newLogBuffer() *logBuffer { return &logBuffer{change: make(chan struct{})} }

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.change)
	b.change = make(chan struct{})
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
	r := &running{t: t, log: newLogBuffer(), ended: make(chan struct{})}
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

// awaitLog waits until the agent has said all the parts: what it does may be seen elsewhere before it is in the log.
func (r *running) awaitLog(parts ...string) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		r.log.mu.Lock()
		text, change := r.log.buf.String(), r.log.change
		r.log.mu.Unlock()
		missing := slices.IndexFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
		if missing < 0 {
			return
		}
		select {
		case <-change:
		case <-deadline:
			r.t.Fatalf("the agent does not say %q within %v", parts[missing], patience)
		}
	}
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
