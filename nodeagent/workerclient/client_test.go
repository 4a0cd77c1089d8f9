package workerclient

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is the socket side of an agent, which can be restarted.
type agent struct {
	*socket.Server
	t       *testing.T
	dir     string
	key     reconcile.Key
	changed chan struct{}
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, dir: t.TempDir(), key: reconcile.Key{Job: 1, Epoch: 1}, changed: make(chan struct{}, 100)}
	a.start()
	t.Cleanup(func() { a.Shutdown() })
	return a
}

func (a *agent) path() string {
	a.t.Helper()
	path, err := socket.Path(a.dir, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *agent) start() {
	a.t.Helper()
	a.Server = socket.New(socket.Config{Host: "h", Changed: func() { a.changed <- struct{}{} }})
	a.Track(a.key, socket.Files{Socket: a.path(), Notes: filepath.Join(a.dir, "notes.json")})
	if err := a.Serve(a.key); err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) client(world int) *Client {
	a.t.Helper()
	c, err := New(Environment{WorldSize: world, Socket: a.path()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (a *agent) awaitStep(step int64) {
	a.t.Helper()
	deadline := time.After(30 * time.Second)
	for a.Notes(a.key).GetProgress().GetStep() != step {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			a.t.Fatalf("progress %v, want step %d", a.Notes(a.key).GetProgress(), step)
		}
	}
}

func TestCallsSurviveAgentRestart(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	c := a.client(1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c.ReportProgress(Progress{Step: 1})
	a.awaitStep(1)
	met := make(chan []string, 1)
	go func() {
		peers, err := c.Rendezvous(ctx, ":9")
		if err != nil {
			t.Error(err)
		}
		met <- peers
	}()
	<-a.changed
	a.Shutdown()
	// While the agent is away nothing fails and nothing waits, but for what asks to wait.
	for step := int64(2); step <= 1000; step++ {
		c.ReportProgress(Progress{Step: step})
	}
	saved := make(chan error, 1)
	go func() { saved <- c.ReportCheckpoint(ctx, Checkpoint{Step: 7, Path: "/p"}) }()
	a.start()
	if err := <-saved; err != nil {
		t.Error(err)
	}
	a.SetGang(a.key, socket.Gang{Formation: 1, Members: []int32{0}, Peers: []string{"h:9"}})
	if d := cmp.Diff([]string{"h:9"}, <-met); d != "" {
		t.Error(d)
	}
	a.awaitStep(1000)
	now := time.Now()
	a.SetStop(a.key, socket.Stop{Reason: "drain", Terminate: now.Add(time.Hour), Kill: now.Add(2 * time.Hour)})
	if n := <-c.Notices(); n.Reason != "drain" || time.Until(n.Terminate) < 59*time.Minute {
		t.Errorf("%+v", n)
	}
	// The same stop, told again by the next agent, is no news; another one is.
	a.Shutdown()
	a.start()
	a.SetStop(a.key, socket.Stop{Reason: "drain", Terminate: now.Add(time.Hour), Kill: now.Add(2 * time.Hour)})
	a.SetStop(a.key, socket.Stop{Reason: "cancel", Terminate: now, Kill: now})
	if n := <-c.Notices(); n.Reason != "cancel" {
		t.Errorf("%+v", n)
	}
}

func TestDeadlineBoundsAnAbsentAgent(t *testing.T) {
	t.Parallel()
	c, err := New(Environment{WorldSize: 2, Socket: filepath.Join(t.TempDir(), "none.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // checked elsewhere
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Rendezvous(ctx, ":1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("rendezvous: %v", err)
	}
	if err := c.ReportCheckpoint(ctx, Checkpoint{Path: "/p"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("checkpoint: %v", err)
	}
	if err := c.ReportPeerLost(ctx, 1, "gone"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("peer lost: %v", err)
	}
	c.ReportProgress(Progress{Step: 1})
}

func TestCloseEndsCallsAndSendsTheLastProgress(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	c := a.client(1)
	waiting := make(chan error, 1)
	go func() {
		_, err := c.Rendezvous(context.Background(), ":9")
		waiting <- err
	}()
	<-a.changed
	for step := range int64(100) {
		c.ReportProgress(Progress{Step: step})
	}
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; !errors.Is(err, ErrClosed) {
		t.Errorf("rendezvous of a closed client: %v", err)
	}
	if _, open := <-c.Notices(); open {
		t.Error("notices are still open")
	}
	if got := a.Notes(a.key).GetProgress().GetStep(); got != 99 {
		t.Errorf("last step %d", got)
	}
}

func TestRefusalsAreNotRetried(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	c := a.client(1)
	if _, err := c.Rendezvous(t.Context(), "no port"); err == nil || !strings.Contains(err.Error(), "not host:port") {
		t.Errorf("%v", err)
	}
	big := map[string]float64{}
	for i := range 40 {
		big[string(rune('A'+i))] = 1
	}
	c.ReportProgress(Progress{Step: 5, Metrics: big}) // refused, dropped
	c.ReportProgress(Progress{Step: 6})
	a.awaitStep(6)
	if err := c.ReportPeerLost(t.Context(), 3, "reset"); err != nil || !a.Notes(a.key).GetPeerLost() {
		t.Errorf("%v", err)
	}
}

func TestWorldOfOne(t *testing.T) {
	t.Parallel()
	env, err := fromEnv(func(string) string { return "" })
	if err != nil || env.WorldSize != 1 || env.ArrayIndex != -1 || env.GPUShare != 1 || env.NumNodes != 1 {
		t.Fatalf("%+v, %v", env, err)
	}
	c, err := New(env)
	if err != nil {
		t.Fatal(err)
	}
	peers, err := c.Rendezvous(t.Context(), "me:1")
	if err != nil || len(peers) != 1 || peers[0] != "me:1" {
		t.Errorf("%v, %v", peers, err)
	}
	c.ReportProgress(Progress{})
	err = errors.Join(c.ReportCheckpoint(t.Context(), Checkpoint{}), c.ReportPeerLost(t.Context(), 0, ""), c.Close())
	if _, open := <-c.Notices(); open || err != nil {
		t.Errorf("%v", err)
	}
}

func TestFromEnv(t *testing.T) {
	t.Parallel()
	vars := map[string]string{
		"GANGLINE_JOB_ID": "42", "GANGLINE_JOB_NAME": "digits", "GANGLINE_EPOCH": "3", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8",
		"GANGLINE_NODE_RANK": "2", "GANGLINE_NUM_NODES": "4", "GANGLINE_GPU_UUIDS": "GPU-a,GPU-b", "GANGLINE_CHECKPOINT_DIR": "/ck",
		"GANGLINE_RESUME_FROM": "/ck/7", "GANGLINE_CHECKPOINT_KEEP": "3", "GANGLINE_CHECKPOINT_INTERVAL": "500 steps",
		"GANGLINE_CHECKPOINT_EVERY": "1000", "GANGLINE_CHECKPOINT_BEST": "loss:min,acc:max:2", "GANGLINE_AGENT_SOCKET": "/s", "GANGLINE_ARRAY_INDEX": "9",
		"GANGLINE_ARRAY_JOB_ID": "33", "GANGLINE_GPU_SHARE": "0.25",
	}
	get := func(name string) string { return vars[name] }
	env, err := fromEnv(get)
	want := Environment{
		JobID: 42, JobName: "digits", Epoch: 3, Rank: 5, LocalRank: 1, WorldSize: 8, NodeRank: 2, NumNodes: 4, GPUs: []string{"GPU-a", "GPU-b"},
		CheckpointDir: "/ck", ResumeFrom: "/ck/7", CheckpointKeep: 3,
		CheckpointInterval: "500 steps", CheckpointEvery: 1000, CheckpointBest: []checkpoint.Best{{Metric: "loss", Lowest: true, Count: 1}, {Metric: "acc", Count: 2}},
		Socket: "/s", ArrayIndex: 9, LocalWorldSize: 1,
		ArrayJobID: 33, GPUShare: 0.25,
	}
	if d := cmp.Diff(want, env); d != "" || err != nil {
		t.Error(d, err)
	}
	delete(vars, "RANK") // launch mode per-node
	delete(vars, "WORLD_SIZE")
	if env, err = fromEnv(get); err != nil || env.Rank != 2 || env.WorldSize != 4 {
		t.Errorf("per-node: %+v, %v", env, err)
	}
	vars["RANK"], vars["WORLD_SIZE"], vars["GANGLINE_EPOCH"] = "x", "-1", "y"
	if _, err = fromEnv(get); err == nil || strings.Count(err.Error(), "is not a number") != 3 {
		t.Errorf("three broken numbers: %v", err)
	}
	for _, share := range []string{"0", "1.5", "NaN", "half"} {
		if _, err := fromEnv(func(n string) string { return map[string]string{"GANGLINE_GPU_SHARE": share}[n] }); err == nil || !strings.Contains(err.Error(), "GANGLINE_GPU_SHARE") {
			t.Errorf("a share of %s: %v", share, err)
		}
	}
	alone := map[string]string{"RANK": "0", "WORLD_SIZE": "2"}
	if _, err = fromEnv(func(n string) string { return alone[n] }); err == nil || !strings.Contains(err.Error(), "GANGLINE_AGENT_SOCKET") {
		t.Errorf("two ranks without a socket: %v", err)
	}
}

// TestNoticesAreBounded: nobody takes them, the oldest go.
func TestNoticesAreBounded(t *testing.T) {
	t.Parallel()
	c := &Client{notices: make(chan Notice, maxNotices)}
	for i := range 100 {
		c.deliver(Notice{Kill: time.Unix(int64(i), 0)})
	}
	if first := <-c.notices; first.Kill.Unix() != 100-maxNotices {
		t.Errorf("oldest kept is %d", first.Kill.Unix())
	}
}

// TestRingIsFollowed: the agent hears what a function tells of the ring, also of one that takes another's place.
func TestRingIsFollowed(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	c := a.client(1)
	for calls := int64(1); calls <= 2; calls++ {
		c.FollowRing(func() Ring { return Ring{Calls: calls, Bytes: 400, Busy: 3 * time.Second} })
		deadline := time.After(30 * time.Second)
		for a.Notes(a.key).GetRing().GetCalls() != calls {
			select {
			case <-time.After(10 * time.Millisecond):
			case <-deadline:
				t.Fatalf("the agent knows of %v, want %d calls", a.Notes(a.key).GetRing(), calls)
			}
		}
	}
	if r := a.Notes(a.key).GetRing(); r.GetBytes() != 400 || r.GetBusyNs() != 3e9 {
		t.Errorf("the agent heard of %v, want 400 bytes and 3 s", r)
	}
}

// TestACheckpointIsToldAgain: who gives up waiting for its agent need not tell again when that is back; of several the newest is told, with its own time.
func TestACheckpointIsToldAgain(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	c := a.client(1)
	a.Shutdown()
	began := time.Now().UnixMilli()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for step := int64(7); step <= 9; step++ {
		if err := c.ReportCheckpoint(gone, Checkpoint{Step: step, Path: "/p"}); err == nil {
			t.Error("an agent that is away has heard")
		}
	}
	told := time.Now().UnixMilli()
	a.start()
	for deadline := time.Now().Add(30 * time.Second); a.Notes(a.key).GetCheckpoint().GetStep() != 9; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it knows of %v", a.Notes(a.key).GetCheckpoint())
		}
	}
	if at := a.Notes(a.key).GetCheckpoint().GetSavedUnixMs(); at < began || at > told {
		t.Errorf("saved at %d, want %d to %d", at, began, told)
	}
}
