package nodeagent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/gpu/fake"
	"github.com/gangline/gangline/nodeagent/workerclient"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// sick breaks an emulated GPU.
type sick struct{ *Agent }

func (s *sick) breakFirst(t *testing.T) {
	t.Helper()
	p, ok := s.gpus.(*fake.Prober)
	if !ok {
		t.Fatalf("GPUs are %T", s.gpus)
	}
	if err := p.SetHealth(s.monitor.Latest().GPUs[0].UUID, gpu.Health{Reason: "fell off the bus"}); err != nil {
		t.Fatal(err)
	}
}

// client dials a worker's socket, as the worker itself would.
func (r *running) client(key string, rank, world int) *workerclient.Client {
	r.t.Helper()
	c, err := workerclient.New(workerclient.Environment{
		Rank: rank, WorldSize: world, Socket: filepath.Join(r.cfg.StateDir, "s", key+".sock"),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestRestartedAgentAdopts(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	first := start(t, cfg)
	gate := filepath.Join(t.TempDir(), "gate")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	as := first.script(1, 1, "while [ -e "+gate+" ]; do sleep 0.01; done; exit 7")
	s.order(3, 30, as)
	s.awaitWorker("1-1-0", isRunning)
	s.mu.Lock()
	node := s.hello.GetNodeId()
	s.mu.Unlock()
	c := first.client("1-1-0", 0, 1)
	met := make(chan []string, 1)
	go func() {
		peers, err := c.Rendezvous(t.Context(), "0.0.0.0:4242")
		if err != nil {
			t.Error(err)
		}
		met <- peers
	}()
	s.await("address", func() bool { return s.find("1-1-0").GetRendezvousAddress() == "127.0.0.1:4242" })
	share, before := s.find("1-1-0").GetRendezvousShare(), time.Now().UnixMilli()
	c.ReportProgress(workerclient.Progress{Step: 12, TotalSteps: 100, Metrics: map[string]float64{"loss": 0.5}})
	if err := c.ReportCheckpoint(t.Context(), workerclient.Checkpoint{Step: 10, Path: "/ck/10", Bytes: 99}); err != nil {
		t.Fatal(err)
	}
	s.await("progress and checkpoint", func() bool {
		w := s.find("1-1-0")
		return w.GetProgress().GetStep() == 12 && w.GetCheckpoint().GetStep() == 10
	})
	first.stop()
	if first.err != nil {
		t.Fatalf("first agent: %v", first.err)
	}
	s.set(func() { s.workers, s.hello = nil, nil })

	after := time.Now().UnixMilli()
	second := start(t, cfg)
	w := s.awaitWorker("1-1-0", isRunning)
	if at := w.GetCheckpoint().GetSavedUnixMs(); at < before || at > after {
		t.Errorf("saved at %d, want %d to %d", at, before, after)
	}
	want := &agentv1.WorkerStatus{
		Key: w.GetKey(), State: isRunning, GpuUuids: w.GetGpuUuids(), RendezvousAddress: "127.0.0.1:4242", RendezvousShare: share,
		Checkpoint: &agentv1.Checkpoint{Step: 10, Path: "/ck/10", Bytes: 99, SavedUnixMs: w.GetCheckpoint().GetSavedUnixMs()},
		Progress:   &agentv1.Progress{Step: 12, TotalSteps: 100, Metrics: map[string]float64{"loss": 0.5}},
	}
	if d := cmp.Diff(want, w, protocmp.Transform(), protocmp.IgnoreFields(want, "cpu_ms", "max_rss_bytes")); d != "" {
		t.Error(d)
	}
	s.mu.Lock()
	if h := s.hello; h.GetNodeId() != node || h.GetIncarnation() != 2 || h.GetClusterId() != "c1" || h.GetFence().GetIndex() != 30 || h.GetFence().GetTerm() != 3 {
		t.Errorf("second hello: %v", h)
	}
	s.mu.Unlock()
	// The worker's own call has lived through it.
	as.Peers = []string{"127.0.0.1:4242"}
	s.order(3, 31, as)
	if peers := <-met; len(peers) != 1 || peers[0] != "127.0.0.1:4242" {
		t.Errorf("peers %v", peers)
	}
	// It ends while no agent runs; the third one tells how.
	second.stop()
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	s.set(func() { s.workers = nil })
	socket := filepath.Join(cfg.StateDir, "s", "1-1-0.sock") // as an agent that was killed leaves it
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	third := start(t, cfg)
	if w := s.awaitWorker("1-1-0", isExited); w.GetExitCode() != 7 || w.GetCheckpoint().GetStep() != 10 {
		t.Errorf("%v", w)
	}
	s.await("removal of the ended worker's socket", func() bool {
		_, err := os.Stat(socket)
		return errors.Is(err, fs.ErrNotExist)
	})
	contains(t, third.log.String(), "incarnation=3")
}

// TestSickDriverDoesNotKeepTheAgentDown: the driver hangs when the agent is restarted; its worker is adopted all the same.
func TestSickDriverDoesNotKeepTheAgentDown(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	first := start(t, cfg)
	s.order(1, 1, first.script(1, 1, "sleep 1000"))
	s.awaitWorker("1-1-0", isRunning)
	first.stop()
	s.set(func() { s.workers = nil })
	cfg.GPUs, cfg.GPUProbe = "auto", []string{"sleep", "1000"}
	second := start(t, cfg)
	w := s.awaitWorker("1-1-0", isRunning)
	if len(w.GetGpuUuids()) != 1 {
		t.Errorf("adopted %v", w)
	}
	contains(t, second.log.String(), "GPUs cannot be read; living workers go on")
}

func TestOlderOrderIsRefusedAfterRestart(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	first := start(t, cfg)
	as := first.script(1, 1, "sleep 1000")
	s.order(5, 50, as)
	s.awaitWorker("1-1-0", isRunning)
	first.stop()
	// A leader of an older term, which knows nothing of the job.
	s.order(4, 99)
	second := start(t, cfg)
	second.awaitLog("refused an order", "comes from a former leader")
	s.set(func() { s.beats = 0 }) // the first agent's, and those before it refused
	s.await("beats", func() bool { return s.hello.GetIncarnation() == 2 && s.beats > 5 })
	if w := s.awaitWorker("1-1-0", isRunning); w == nil {
		t.Error("the worker was stopped by a former leader")
	}
	s.order(6, 51)
	s.awaitWorker("1-1-0", isExited)
}

func TestLeaderLostAndRegained(t *testing.T) {
	t.Parallel()
	one, two := newScheduler(t), newScheduler(t)
	two.set(func() { two.redirect = &agentv1.Redirect{LeaderAddress: one.address} })
	r := start(t, testConfig(t, one, two))
	as := r.script(1, 1, "sleep 1000")
	one.order(1, 1, as)
	one.awaitWorker("1-1-0", isRunning)
	one.stop()
	two.set(func() {
		two.redirect = nil
		two.desired = &agentv1.Desired{Fence: &agentv1.Fence{Term: 2, Index: 2}, Assignments: []*agentv1.Assignment{as}}
	})
	two.awaitWorker("1-1-0", isRunning)
	two.await("beats", func() bool { return two.beats > 5 })
	if got := len(two.lines("1-1-0")); got != 1 {
		t.Errorf("history %v", two.lines("1-1-0"))
	}
}

// TestStopHandshake checks the order: notice on the socket, warning signal, SIGTERM, SIGKILL. The clock is an hour off.
func TestStopHandshake(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	cfg.Clock = func() time.Time { return time.Now().Add(-time.Hour) }
	r := start(t, cfg)
	as := r.script(1, 1, `trap 'echo usr1' USR1; trap 'echo term' TERM; echo ready; while :; do sleep 0.02; done`)
	s.order(1, 1, as)
	s.awaitWorker("1-1-0", isRunning)
	c := r.client("1-1-0", 0, 1)
	r.awaitOutput("1-1-0", "ready")
	began := time.Now()
	as.Stop = &agentv1.Stop{Reason: "preempted by job 9", WarnMs: 700, GraceMs: 600}
	s.order(1, 2, as)
	notice := <-c.Notices()
	if left := time.Until(notice.Terminate); notice.Reason != "preempted by job 9" || left > 700*time.Millisecond || notice.Kill.Sub(notice.Terminate) != 600*time.Millisecond {
		t.Errorf("notice %+v, SIGTERM in %v", notice, left)
	}
	w := s.awaitWorker("1-1-0", isExited)
	if took := time.Since(began); w.GetSignal() != 9 || took < 1300*time.Millisecond {
		t.Errorf("%v after %v", w, took)
	}
	if got := r.output("1-1-0", nil); got != "ready\nusr1\nterm\n" {
		t.Errorf("output %q", got)
	}
}

// TestStopOutlivesTheAgent: an agent that comes back during the warning keeps the deadlines of the stop.
func TestStopOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	first := start(t, cfg)
	as := first.script(1, 1, `trap 'exit 3' TERM; trap 'echo usr1' USR1; echo ready; while :; do sleep 0.02; done`)
	s.order(1, 1, as)
	first.awaitOutput("1-1-0", "ready")
	as.Stop = &agentv1.Stop{Reason: "drain", WarnMs: 60_000, GraceMs: 1000}
	began := time.Now()
	s.order(1, 2, as)
	first.awaitOutput("1-1-0", "usr1")
	first.stop()
	second := start(t, cfg)
	c := second.client("1-1-0", 0, 1)
	notice := <-c.Notices()
	if late := notice.Terminate.Sub(began.Add(time.Minute)); late.Abs() > 5*time.Second {
		t.Errorf("SIGTERM is %v away from the first deadline", late)
	}
	// A cancel is tighter: it goes through.
	as2 := second.script(1, 1, "")
	as2.Stop = &agentv1.Stop{Reason: "cancelled", GraceMs: 1000}
	s.order(1, 3, as2)
	if w := s.awaitWorker("1-1-0", isExited); w.GetExitCode() != 3 {
		t.Errorf("%v", w)
	}
	if got := second.output("1-1-0", nil); got != "ready\nusr1\n" {
		t.Errorf("output %q: want one warning signal", got)
	}
}

// TestSilentSupervisorIsNoLoss: a restarted agent tells of a worker of which it knows no more than that it was launched,
// for its last status met a full disk and its supervisor does not answer yet.
func TestSilentSupervisorIsNoLoss(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	cfg := testConfig(t, s)
	first := start(t, cfg)
	s.order(1, 1, first.script(1, 1, "sleep 60"))
	s.awaitWorker("1-1-0", isRunning)
	supervisor := first.workers.Workers()[0].SupervisorPID
	first.stop()
	// The supervisor tells the agent before the disk: the file is removed once it is there.
	status := filepath.Join(cfg.StateDir, "workers", "1-1-0", "status.json")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for os.Remove(status) != nil {
		if !sleep(ctx, 10*time.Millisecond) {
			t.Fatal("the status was never on disk")
		}
	}
	if err := unix.Kill(supervisor, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer unix.Kill(supervisor, unix.SIGCONT) // or the test's end waits for it in vain
	s.set(func() { s.workers = nil })
	start(t, cfg)
	s.await("the second Hello", func() bool { return s.hello.GetIncarnation() == 2 })
	s.awaitWorker("1-1-0", isRunning)
}

// awaitOutput follows a worker's log until it holds text.
func (r *running) awaitOutput(key, text string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for !strings.Contains(r.output(key, nil), text) {
		if !sleep(ctx, 10*time.Millisecond) {
			r.t.Fatalf("worker %s never said %q", key, text)
		}
	}
}
