package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/gangline/gangline/nodeagent/workerclient"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// agents plays the agents of a gang: one socket per rank, one memory.
type agents struct {
	world  int
	onSave func(step int64) // called when a checkpoint was reported; nil: nothing

	mu       sync.Mutex
	address  map[int]string
	met      chan struct{} // closed once all ranks' addresses are known
	notice   chan struct{} // closed when all workers are to stop
	progress *agentv1.Progress
	saved    []*agentv1.Checkpoint
	lost     map[int]*agentv1.ReportPeerLostRequest // by the rank that reports
}

// agent is the socket of one rank.
type agent struct {
	agentv1.UnimplementedWorkerServiceServer
	*agents
	rank int
}

func (a *agent) Rendezvous(ctx context.Context, req *agentv1.RendezvousRequest) (*agentv1.RendezvousResponse, error) {
	_, port, err := net.SplitHostPort(req.GetAddress())
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	_, again := a.address[a.rank]
	a.address[a.rank] = net.JoinHostPort("127.0.0.1", port)
	if len(a.address) == a.world && !again {
		close(a.met)
	}
	a.mu.Unlock()
	select {
	case <-a.met:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	resp := &agentv1.RendezvousResponse{Rank: int32(a.rank), Secret: []byte("a secret of the test's gang")}
	for rank := range a.world {
		resp.Peers = append(resp.Peers, a.address[rank])
	}
	return resp, nil
}

func (a *agent) ReportProgress(_ context.Context, req *agentv1.ReportProgressRequest) (*agentv1.ReportProgressResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.progress = req.GetProgress()
	return &agentv1.ReportProgressResponse{}, nil
}

func (a *agent) ReportCheckpoint(_ context.Context, req *agentv1.ReportCheckpointRequest) (*agentv1.ReportCheckpointResponse, error) {
	a.mu.Lock()
	a.saved = append(a.saved, req.GetCheckpoint())
	a.mu.Unlock()
	if a.onSave != nil {
		a.onSave(req.GetCheckpoint().GetStep())
	}
	return &agentv1.ReportCheckpointResponse{}, nil
}

func (a *agent) ReportPeerLost(_ context.Context, req *agentv1.ReportPeerLostRequest) (*agentv1.ReportPeerLostResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost[a.rank] = req
	return &agentv1.ReportPeerLostResponse{}, nil
}

func (a *agent) WatchNotices(_ *agentv1.WatchNoticesRequest, stream grpc.ServerStreamingServer[agentv1.WatchNoticesResponse]) error {
	select {
	case <-stream.Context().Done():
		return nil
	case <-a.notice:
	}
	stop := &agentv1.StopNotice{Reason: "evicted by a test", TerminateInMs: 30_000, KillInMs: 40_000}
	if err := stream.Send(&agentv1.WatchNoticesResponse{Notice: &agentv1.WatchNoticesResponse_Stop{Stop: stop}}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// launch runs one epoch of a job as its workers would, over gRPC on loopback. kill ends a rank's context, as a crash
// would. It gives each rank's error.
func launch(t *testing.T, a *agents, epoch uint64, cfg config, dir string, kill map[int]context.Context, out, diag *output) []error {
	t.Helper()
	sockets, err := os.MkdirTemp("", "digits") //nolint:usetesting // t.TempDir may be too long for the name of a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(sockets)
	a.address, a.met, a.lost = map[int]string{}, make(chan struct{}), map[int]*agentv1.ReportPeerLostRequest{}
	if a.notice == nil {
		a.notice = make(chan struct{})
	}
	cfg.listen = "127.0.0.1:0"
	errs := make([]error, a.world)
	var workers, servers sync.WaitGroup
	defer servers.Wait() // after every Stop below
	for rank := range a.world {
		socket := filepath.Join(sockets, fmt.Sprint(rank))
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		agentv1.RegisterWorkerServiceServer(server, &agent{agents: a, rank: rank})
		servers.Go(func() { _ = server.Serve(listener) })
		defer server.Stop()
		ctx := kill[rank]
		if ctx == nil {
			ctx = t.Context()
		}
		env := workerclient.Environment{
			JobID: 7, Epoch: epoch, JobName: "digits", Rank: rank, WorldSize: a.world, Socket: socket, CheckpointDir: dir, CheckpointKeep: 2,
		}
		workers.Go(func() { errs[rank] = run(ctx, env, cfg, newStopper(), out, diag) })
	}
	workers.Wait()
	return errs
}

// TestJobThroughLossAndEviction is the whole life of a job: a rank is lost, the gang is evicted, and a third one of another
// size ends the training, with the model that nobody disturbed.
func TestJobThroughLossAndEviction(t *testing.T) {
	t.Parallel()
	cfg := smallConfig()
	cfg.epochs, cfg.checkpointEvery, cfg.keep = 20, 20, 2 // 300 steps; what the job says is up to its agent, and there is none here
	want := (&gang{world: 1}).train(t, cfg)
	dir := t.TempDir()

	// 1. Rank 2 of 4 dies some time after a checkpoint.
	dying, die := context.WithCancel(t.Context())
	defer die()
	var once sync.Once
	first := &agents{world: 4, onSave: func(step int64) {
		if step >= 60 {
			once.Do(die)
		}
	}}
	var out, diag output
	errs := launch(t, first, 1, cfg, dir, map[int]context.Context{2: dying}, &out, &diag)
	for rank, err := range errs {
		status := exitStatus(err, rank)
		report := first.lost[rank]
		if rank == 2 {
			if status != exitFailed || report != nil {
				t.Errorf("the dying rank: %v, exit status %d, report %v", err, status, report)
			}
			continue
		}
		if status != exitAgain || report.GetRank() != 2 || report.GetCause() == "" || !strings.Contains(err.Error(), "rank 2 is lost") {
			t.Errorf("rank %d: %v, exit status %d, report %v; want one of rank 2", rank, err, status, report)
		}
	}

	// 2. All are evicted some time after another checkpoint.
	second := &agents{world: 2, notice: make(chan struct{})}
	var evict sync.Once
	second.onSave = func(step int64) {
		if step >= 120 {
			evict.Do(func() { close(second.notice) })
		}
	}
	slow := cfg
	slow.stepDelay = 2 * time.Millisecond // the notice needs a moment to arrive
	out = output{}
	for rank, err := range launch(t, second, 2, slow, dir, nil, &out, &diag) {
		if exitStatus(err, rank) != exitAgain || !errors.Is(err, errStopped) {
			t.Fatalf("evicted: rank %d: %v\n%s", rank, err, diag.String())
		}
	}
	if line := lastLine([]byte(out.String())); !strings.HasPrefix(line, "stopped after step ") {
		t.Errorf("evicted: last line %q", line)
	}
	stopped := second.saved[len(second.saved)-1]
	if stopped.GetStep() != second.progress.GetStep() || stopped.GetStep() >= 300 {
		t.Errorf("evicted at step %d, the last reported checkpoint is of step %d", second.progress.GetStep(), stopped.GetStep())
	}

	// 3. Three ranks end it.
	third := &agents{world: 3}
	out = output{}
	if err := errors.Join(launch(t, third, 3, cfg, dir, nil, &out, &diag)...); err != nil {
		t.Fatalf("last launch: %v\n%s", err, diag.String())
	}
	if got := lastLine([]byte(out.String())); got != want {
		t.Errorf("through loss and eviction: %q\nundisturbed:               %q", got, want)
	}
	checkReports(t, third, stopped.GetStep(), dir)
}

// checkReports looks at what the agents heard of the last launch.
func checkReports(t *testing.T, a *agents, start int64, dir string) {
	t.Helper()
	m := a.progress.GetMetrics()
	if a.progress.GetStep() != 300 || a.progress.GetTotalSteps() != 300 || a.progress.GetDataEpoch() != 20 {
		t.Errorf("last progress: %v", a.progress)
	}
	if m["start_step"] != float64(start) || m["steps_done"] != float64(300-start) || m["checkpoint_step"] != 300 {
		t.Errorf("metrics %v, want a start at step %d", m, start)
	}
	if m["test_accuracy"] < 0.85 || m["loss"] <= 0 || m["model_hash32"] == 0 {
		t.Errorf("metrics %v lack a result", m)
	}
	last := a.saved[len(a.saved)-1]
	if last.GetStep() != 300 || last.GetPath() != filepath.Join(dir, "step-0000000300.epoch-3") || last.GetBytes() <= 0 {
		t.Errorf("last reported checkpoint: %v", last)
	}
	if _, err := os.Stat(filepath.Join(last.GetPath(), "MANIFEST.json")); err != nil {
		t.Error(err)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "step-*"))
	if err != nil || len(kept) != 2 {
		t.Errorf("kept %v (%v), want 2 checkpoints", kept, err)
	}
}

// TestStopBeforeAllCame: a peer that never comes must not keep a worker that is asked to stop.
func TestStopBeforeAllCame(t *testing.T) {
	t.Parallel()
	a := &agents{world: 2, notice: make(chan struct{}), address: map[int]string{}, met: make(chan struct{})}
	close(a.notice)
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Skipf("no Unix socket at %s: %v", socket, err)
	}
	server := grpc.NewServer()
	agentv1.RegisterWorkerServiceServer(server, &agent{agents: a})
	var wait sync.WaitGroup
	wait.Go(func() { _ = server.Serve(listener) })
	defer wait.Wait()
	defer server.Stop()
	cfg := smallConfig()
	cfg.listen = "127.0.0.1:0"
	var out, diag output
	env := workerclient.Environment{JobID: 7, Epoch: 1, WorldSize: 2, Socket: socket}
	if err := run(t.Context(), env, cfg, newStopper(), &out, &diag); err == nil || !strings.Contains(err.Error(), "before all ranks had come") {
		t.Errorf("error %v", err)
	}
}
