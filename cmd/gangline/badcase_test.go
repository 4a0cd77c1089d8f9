package main

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/nodeagent"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// TestOutputSurvivesServer: "run" prints all output once, although the server
// that it talks to is killed meanwhile.
func TestOutputSurvivesServer(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 3, agents: 1, gpus: 1})
	script, release := c.waiting("talk", "echo after")
	out := &syncBuffer{grew: make(chan struct{}, 1)}
	var errw bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	code := make(chan int, 1)
	go func() {
		args := []string{"--server", c.address(), "run", "--", "sh", "-c", "echo before\n" + script}
		code <- execute(ctx, args, strings.NewReader(""), out, &errw)
	}()
	for !strings.Contains(out.String(), "before") {
		select {
		case <-out.grew:
		case <-ctx.Done():
			t.Fatal("the first line was not printed")
		}
	}
	c.servers[0].signal(t, syscall.SIGKILL) // the client takes the first that answers
	release.raise(t)
	if got := <-code; got != 0 {
		t.Errorf("exit code %d: %s", got, errw.String())
	}
	if got, want := out.String(), "[0] before\n[0] after\n"; got != want {
		t.Errorf("printed %q, want %q; standard error: %s", got, want, errw.String())
	}
}

// syncBuffer is a buffer that one goroutine writes and another reads.
type syncBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	grew chan struct{} // depth 1
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.grew <- struct{}{}:
	default:
	}
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// replaceArg changes the value of a flag.
func replaceArg(args []string, flag, value string) []string {
	args = slices.Clone(args)
	args[slices.Index(args, flag)+1] = value
	return args
}

// TestTwoAgentsOneName: the second agent of a name, and a second agent on one
// state directory, say what is wrong and what to do; the first one goes on.
func TestTwoAgentsOneName(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 1})
	twin := c.addAgent("twin", 1)
	twin.args = replaceArg(twin.args, "--name", "n1")
	c.start(twin)
	poll(t, "the second agent is refused", func() bool { return strings.Contains(twin.log(), "the scheduler refuses this node") })
	for _, part := range []string{"two agents with one name", c.agents[0].addr, "start this agent with another --name, or stop the other one first"} {
		if !strings.Contains(twin.log(), part) {
			t.Errorf("the log does not say %q", part)
		}
	}
	same := c.addAgent("same", 1)
	same.args = replaceArg(same.args, "--state-dir", c.agents[0].dir)
	c.start(same)
	<-same.done
	for _, part := range []string{"start agent same", c.agents[0].dir, "in use"} {
		if log := same.log(); !strings.Contains(log, part) {
			t.Errorf("the second agent on one state directory says %q, not %q", log, part)
		}
	}
	if code := same.cmd.ProcessState.ExitCode(); code != exitFailure {
		t.Errorf("exit code %d", code)
	}
	c.awaitNodes(1)
	if n := c.nodes()["n1"]; n.GetAddress() != c.agents[0].addr {
		t.Errorf("node n1 is now at %s", n.GetAddress())
	}
	c.must("run", "--", "true")
}

// TestAnotherClustersData: a server and an agent with the data of another
// cluster end and say so; the cluster goes on.
func TestAnotherClustersData(t *testing.T) {
	t.Parallel()
	ours := newTestCluster(t, shape{servers: 3})
	other := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 1})
	for _, p := range []*testProc{ours.servers[0], other.servers[0], other.agents[0]} {
		p.signal(t, syscall.SIGTERM)
	}
	// The same id, the wrong disk.
	stray := *ours.servers[0]
	stray.name, stray.args = "stray", replaceArg(stray.args, "--data-dir", other.servers[0].dir)
	stray.dir = filepath.Join(ours.dir, "stray")
	ours.start(&stray)
	t.Cleanup(func() { stray.signal(t, syscall.SIGKILL) })
	select {
	case <-stray.done:
	case <-time.After(patience):
		t.Fatalf("the stray server goes on; its log:\n%s", stray.log())
	}
	t.Logf("server: %s", lastLine(stray.log()))
	if log := lastLine(stray.log()); !strings.Contains(log, other.servers[0].dir) || !strings.Contains(log, "cluster") {
		t.Errorf("the server says %q: want the directory and that it is of another cluster", log)
	}
	// A node that moved without its state directory being emptied.
	agent := other.agents[0]
	agent.args = replaceArg(agent.args, "--server", ours.address())
	other.start(agent)
	select {
	case <-agent.done:
	case <-time.After(patience):
		t.Fatalf("the agent goes on; its log:\n%s", agent.log())
	}
	t.Logf("agent: %s", lastLine(agent.log()))
	for _, part := range []string{"belongs to", "cluster", agent.dir} {
		if log := lastLine(agent.log()); !strings.Contains(log, part) {
			t.Errorf("the agent says %q, not %q", log, part)
		}
	}
	ours.submit("--", "true") // two of three are enough
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestHugeMessage: a message of 100 MB is refused by size, by the server that
// goes on to serve, and a client that vanishes in the middle of one harms nobody.
func TestHugeMessage(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1, agents: 1, gpus: 1})
	conn, err := grpc.NewClient(c.servers[0].addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = schedulerv1.NewSchedulerServiceClient(conn).SubmitJob(ctx, &schedulerv1.SubmitJobRequest{
		RequestId: "huge", User: "tester",
		Spec: &schedulerv1.JobSpec{Name: "huge", Gpus: 1, Command: []string{"true", strings.Repeat("x", 100<<20)}},
	})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("100 MB: %v", err)
	}
	r := c.cli("submit", "--env", "BIG="+strings.Repeat("x", 300<<10), "--", "true")
	if r.code != exitUsage || !strings.Contains(r.err, "at most 262144: put large scripts in a file on shared storage") {
		t.Errorf("300 KB of environment: %+v", r)
	}
	c.must("run", "--", "true")
}

// TestWrongClocks: agents whose clocks are wrong by an hour work as others do;
// people are told.
func TestWrongClocks(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, shape{servers: 1})
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	defer agents.Wait()
	defer cancel()
	for name, skew := range map[string]time.Duration{"fast": time.Hour, "slow": -time.Hour} {
		cfg := nodeagent.DefaultConfig()
		cfg.Name, cfg.StateDir, cfg.Servers = name, filepath.Join(c.dir, name), []string{c.servers[0].addr}
		cfg.Listen, cfg.MetricsListen, cfg.GPUs = freeAddress(t), "", "fake:1xH100"
		cfg.Clock = func() time.Time { return time.Now().Add(skew) }
		agents.Go(func() {
			if err := nodeagent.Run(ctx, cfg); err != nil {
				t.Errorf("agent %s: %v", name, err)
			}
		})
	}
	c.awaitNodes(2)
	out := c.must("run", "--gpus", "2", "--time-limit", "30s", "--", "sh", "-c", "echo rank $RANK")
	if !strings.Contains(out, "rank 0") || !strings.Contains(out, "rank 1") {
		t.Errorf("the gang printed %q", out)
	}
	var table string
	poll(t, "the skew of both clocks is known", func() bool {
		table = c.must("nodes")
		return strings.Contains(table, "clock is off by 59m59.") || strings.Contains(table, "clock is off by 1h0m0")
	})
	for name, n := range c.nodes() {
		if n.GetHeartbeatAgeMs() > 5000 || n.GetState() != schedulerv1.NodeState_NODE_STATE_READY {
			t.Errorf("node %s: %v", name, n)
		}
	}
	for _, skew := range []string{"off by -", "off by "} {
		if !strings.Contains(table, skew) {
			t.Errorf("no clock is said to be %q:\n%s", skew, table)
		}
	}
}

var _ io.Writer = (*syncBuffer)(nil)
