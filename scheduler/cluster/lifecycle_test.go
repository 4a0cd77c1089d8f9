package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// fixture is a cluster of two nodes with four GPUs each.
type fixture struct {
	*testing.T
	s *State
	i uint64
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, s: &State{}}
	f.ok(&Init{ClusterID: "c", Version: 1})
	f.ok(&RegisterNode{Node: gpuNode(0, 4)})
	f.ok(&RegisterNode{Node: gpuNode(1, 4)})
	return f
}

func (f *fixture) apply(c Command) Result {
	f.Helper()
	f.i++
	r := f.s.Apply(f.i, Time(f.i)*Time(time.Second), c)
	if err := f.s.Check(); err != nil {
		f.Fatalf("after %T: %v", c, err)
	}
	return r
}

func (f *fixture) ok(c Command) Result {
	f.Helper()
	r := f.apply(c)
	if r.Code != OK {
		f.Fatalf("%T was refused: %s", c, r.Message)
	}
	return r
}

func (f *fixture) refused(c Command, code Code, words string) {
	f.Helper()
	if r := f.apply(c); r.Code != code || !strings.Contains(r.Message, words) {
		f.Fatalf("%T: got code %d %q, want code %d with %q", c, r.Code, r.Message, code, words)
	}
}

func (f *fixture) want(id JobID, st JobState, words string) *Job {
	f.Helper()
	j := f.s.Job(id)
	if j.State != st || !strings.Contains(j.Reason, words) {
		f.Fatalf("job %d is %s %q, want %s with %q", id, j.State, j.Reason, st, words)
	}
	return j
}

func spec(gpus int32) *JobSpec {
	return &JobSpec{Name: "j", Queue: DefaultQueue, GPUs: gpus, Launch: LaunchPerGPU, Command: []string{"x"}, Grace: time.Second}
}

// start submits a job over both nodes and starts it with one worker on each.
func (f *fixture) start(retries int32) JobID {
	sp := spec(2)
	sp.Retries = retries
	id := f.ok(&SubmitJob{RequestID: "r", Spec: sp}).Job
	f.place(id)
	return id
}

func (f *fixture) place(id JobID) {
	f.Helper()
	f.ok(&StartJob{Job: id, Epoch: f.s.Job(id).Epoch + 1, Workers: []Placement{
		{Rank: 0, Node: "id-0", GPUs: []string{"GPU-0-0"}}, {Rank: 1, Node: "id-1", GPUs: []string{"GPU-1-0"}},
	}})
}

func (f *fixture) report(id JobID, rank Rank, st WorkerState, code int32) {
	f.Helper()
	node := NodeID("id-0")
	if rank == 1 {
		node = "id-1"
	}
	f.ok(&ReportWorkers{Node: node, Workers: []WorkerReport{{Job: id, Epoch: f.s.Job(id).Epoch, Rank: rank, State: st, ExitCode: code}}})
}

func TestSucceeds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	f.want(id, Starting, "starts 2 workers on 2 nodes")
	f.report(id, 0, WorkerRunning, 0)
	f.want(id, Starting, "")
	f.report(id, 1, WorkerRunning, 0)
	f.want(id, Running, "2 workers on 2 nodes")
	f.report(id, 0, WorkerExited, 0)
	f.want(id, Running, "")
	f.report(id, 1, WorkerExited, 0)
	f.want(id, Succeeded, "exited with 0")
	if n := f.s.Node("id-0"); n.Holds() {
		t.Fatalf("node still holds GPUs: %+v", n.GPUs)
	}
}

func TestFailureStopsTheGangAndRetries(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(1)
	f.report(id, 0, WorkerRunning, 0)
	f.report(id, 1, WorkerExited, 3)
	f.want(id, Stopping, "rank 1 on node n1 exited with code 3")
	f.report(id, 0, WorkerExited, 0)
	j := f.want(id, Pending, "waits 1s after failure 1 (1 retry allowed): rank 1 on node n1 exited with code 3")
	if r := f.s.Snapshot().Apply(f.i, j.NotBefore-1, &StartJob{Job: id, Epoch: 2}); !strings.Contains(r.Message, "back-off") {
		t.Fatalf("a job in back-off was not refused for it: %q", r.Message)
	}
	f.place(id)
	f.report(id, 0, WorkerExited, 0)
	f.report(id, 1, WorkerExited, 3)
	f.want(id, Failed, "code 3 (1 retry allowed)")
}

func TestNodeLossRequeuesWithoutBlame(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	f.report(id, 0, WorkerRunning, 0)
	f.report(id, 1, WorkerRunning, 0)
	// The survivor notices first and exits with an error; the verdict waits for the lost node.
	f.ok(&ReportWorkers{Node: "id-0", Workers: []WorkerReport{{Job: id, Epoch: 1, State: WorkerExited, ExitCode: 1, PeerLost: true}}})
	f.want(id, Stopping, "rank 0")
	f.ok(&LoseNode{Node: "id-1", Incarnation: 1, Reason: "no heartbeat"})
	j := f.want(id, Pending, "start again: node n1 was lost (no heartbeat)")
	if j.Failures != 0 || j.Requeues != 1 {
		t.Fatalf("failures %d, requeues %d: a lost node was blamed on the job", j.Failures, j.Requeues)
	}
	// The node comes back with the old worker still running: its GPU is not free.
	n := gpuNode(1, 4)
	n.Incarnation = 2
	f.ok(&RegisterNode{Node: n, Running: []WorkerRef{{Job: id, Epoch: 1, Rank: 1, GPUs: []string{"GPU-1-0"}}}})
	if f.s.Node("id-1").Usable(0) {
		t.Fatal("a GPU under a given-up worker counts as free")
	}
	f.ok(&ReportWorkers{Node: "id-1", Workers: []WorkerReport{{Job: id, Epoch: 1, Rank: 1, State: WorkerExited, Signal: 9}}})
	if !f.s.Node("id-1").Usable(0) {
		t.Fatal("the GPU is not free although the given-up worker has ended")
	}
}

// A rank that dies takes its peers along; whoever is reported first, the one
// that failed of itself is blamed, and only it costs a retry.
func TestBlame(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(1)
	f.ok(&ReportWorkers{Node: "id-0", Workers: []WorkerReport{{Job: id, Epoch: 1, Rank: 0, State: WorkerExited, ExitCode: 1, PeerLost: true}}})
	f.want(id, Stopping, "rank 0")
	f.ok(&ReportWorkers{Node: "id-1", Workers: []WorkerReport{{Job: id, Epoch: 1, Rank: 1, State: WorkerExited, Signal: 9}}})
	if j := f.want(id, Pending, "rank 1 on node n1 was ended by signal 9"); j.Failures != 1 || j.Workers[0].Blamed || !j.Workers[1].Blamed {
		t.Fatalf("failures %d, want 1", j.Failures)
	}
	// A broken link between two healthy nodes is nobody's failure.
	f.i += 5
	f.place(id)
	f.ok(&ReportWorkers{Node: "id-0", Workers: []WorkerReport{{Job: id, Epoch: 2, Rank: 0, State: WorkerExited, ExitCode: 1, PeerLost: true}}})
	f.ok(&ReportWorkers{Node: "id-1", Workers: []WorkerReport{{Job: id, Epoch: 2, Rank: 1, State: WorkerExited, Signal: 15, Stopped: true}}})
	if j := f.want(id, Pending, "start again"); j.Failures != 1 || j.Requeues != 1 {
		t.Fatalf("failures %d, requeues %d, want 1 and 1", j.Failures, j.Requeues)
	}
}

// A rank that ends early, with code 0, takes its peers along for ever: each
// retry would end the same way, so it costs one. In one report the order of
// ranks does not matter.
func TestBlameOfWhoLeftEarly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	sp := spec(2)
	sp.Retries = 1
	id := f.ok(&SubmitJob{RequestID: "r", Spec: sp}).Job
	f.place(id)
	f.report(id, 1, WorkerExited, 0)
	f.ok(&ReportWorkers{Node: "id-0", Workers: []WorkerReport{{Job: id, Epoch: 1, Rank: 0, State: WorkerExited, ExitCode: 1, PeerLost: true}}})
	if j := f.want(id, Pending, "rank 1 on node n1 exited with code 0 while its peers still needed it: rank 0"); j.Failures != 1 || j.Workers[0].Blamed || !j.Workers[1].Blamed {
		t.Fatalf("failures %d, workers %+v", j.Failures, j.Workers)
	}
	f.i += 5
	f.ok(&StartJob{Job: id, Epoch: 2, Workers: []Placement{
		{Rank: 0, Node: "id-0", GPUs: []string{"GPU-0-0"}}, {Rank: 1, Node: "id-0", GPUs: []string{"GPU-0-1"}},
	}})
	f.ok(&ReportWorkers{Node: "id-0", Workers: []WorkerReport{
		{Job: id, Epoch: 2, Rank: 0, State: WorkerExited, ExitCode: 1, PeerLost: true},
		{Job: id, Epoch: 2, Rank: 1, State: WorkerExited},
	}})
	f.want(id, Failed, "rank 1 on node n0 exited with code 0")
}

// A job remembers where its last epochs ran, and no more than MaxHistory of them.
func TestHistory(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(MaxHistory + 3)
	for e := Epoch(1); e <= MaxHistory+2; e++ {
		f.report(id, 0, WorkerExited, 1)
		f.report(id, 1, WorkerExited, 1)
		h := f.s.Job(id).History
		if last := h[len(h)-1]; len(h) != min(int(e), MaxHistory) || last.Epoch != e || last.WorldSize() != 2 || last.NodeOf(1) != "id-1" || last.NodeOf(2) != "" {
			t.Fatalf("after epoch %d: %d launches remembered, the last is %+v", e, len(h), last)
		}
		f.i += uint64(backoffMax / time.Second)
		f.place(id)
	}
}

func TestCancelAndTimeLimit(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(5)
	f.ok(&CancelJob{Job: id, By: "ann", Reason: "typo"})
	f.want(id, Stopping, "cancelled by ann: typo")
	f.report(id, 0, WorkerExited, 1)
	f.report(id, 1, WorkerExited, 0)
	f.want(id, Cancelled, "cancelled by ann: typo")
	if r := f.ok(&CancelJob{Job: id}); len(r.Changes) != 0 {
		t.Fatal("cancelling a final job changed it")
	}
	f.refused(&CancelJob{Job: 99}, NotFound, "job 99 does not exist")
}

func TestEvictedForTimeLimitFails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(5)
	f.ok(&EvictJob{Job: id, Epoch: 1, Cause: StopTimeLimit, Reason: "reached its time limit of 1h"})
	f.report(id, 0, WorkerExited, 0)
	f.report(id, 1, WorkerExited, 0)
	f.want(id, Failed, "reached its time limit")
	f.refused(&EvictJob{Job: id, Epoch: 1, Cause: StopTimeLimit}, Conflict, "Failed")
}

func TestCheckpointOfOldEpochIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(5)
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 10, Path: "/c/10"})
	f.report(id, 0, WorkerExited, 1)
	f.report(id, 1, WorkerExited, 1)
	f.refused(&RecordCheckpoint{Job: id, Epoch: 1, Step: 20, Path: "/c/20"}, StaleCheckpoint, "epoch 1")
	f.i += 10
	f.place(id)
	f.refused(&RecordCheckpoint{Job: id, Epoch: 1, Step: 20, Path: "/c/20"}, StaleCheckpoint, "a checkpoint of epoch 1 is not taken")
	if k := f.s.Job(id).Checkpoint; k.Step != 10 {
		t.Fatalf("checkpoint is of step %d, want 10", k.Step)
	}
}

func TestSubmitRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.refused(&SubmitJob{RequestID: "a", Spec: spec(9)}, NeverFits, "8 of type h100")
	f.refused(&SubmitJob{RequestID: "", Spec: spec(1)}, Invalid, "request id")
	bad := spec(0)
	bad.Command = nil
	f.refused(&SubmitJob{RequestID: "b", Spec: bad}, Invalid, "gpus: 0")
	f.refused(&SubmitJob{RequestID: "b", Spec: bad}, Invalid, "command: is empty")
	bad = spec(1)
	bad.Name, bad.GPUTypes = "j\x1b[2J", []string{"h100\u009b"}
	f.refused(&SubmitJob{RequestID: "b", Spec: bad}, Invalid, `without control characters, is "j\x1b[2J"`)
	f.refused(&SubmitJob{RequestID: "b", Spec: bad}, Invalid, `gpu_type: "h100\u009b"`)
	first := f.ok(&SubmitJob{RequestID: "c", Spec: spec(1)})
	again := f.ok(&SubmitJob{RequestID: "c", Spec: spec(1)})
	if !again.Duplicate || again.Job != first.Job {
		t.Fatalf("retry made job %d, first made %d", again.Job, first.Job)
	}
}

func TestRequestWindow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ok(&SubmitJob{RequestID: "c", Spec: spec(1)})
	f.i += uint64(RequestWindow/time.Second) + 1
	if r := f.ok(&SubmitJob{RequestID: "c", Spec: spec(1)}); r.Duplicate {
		t.Fatal("a request id is remembered beyond its window")
	}
}

func TestTwoNodesWithOneName(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	n := gpuNode(5, 1)
	n.Name = "n0"
	f.refused(&RegisterNode{Node: n}, NameTaken, `a live node named "n0" exists (id id-0`)
	f.ok(&LoseNode{Node: "id-0", Incarnation: 1, Reason: "gone"})
	f.ok(&RegisterNode{Node: n})
	if f.s.Node("id-0") != nil || f.s.NodeByName("n0").ID != "id-5" {
		t.Fatal("the new node did not take over the lost one's name")
	}
}

func TestNodeLosesAGPUWhileHeld(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	n := gpuNode(0, 4)
	n.GPUs = n.GPUs[1:]
	f.ok(&RegisterNode{Node: n, Running: []WorkerRef{{Job: id, Epoch: 1, Rank: 0, GPUs: []string{"GPU-0-0"}}}})
	got := f.s.Node("id-0")
	if i := got.FindGPU("GPU-0-0"); i < 0 || got.GPUs[i].Healthy || len(got.Stale) != 0 {
		t.Fatalf("a vanished GPU that is held must stay, unhealthy: %+v", got)
	}
	f.report(id, 0, WorkerExited, 1)
	f.report(id, 1, WorkerExited, 1)
	if got := f.s.Node("id-0"); got.FindGPU("GPU-0-0") >= 0 {
		t.Fatalf("a vanished GPU is still listed after its holder let go: %+v", got.GPUs)
	}
}

func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	var unknown *UnknownCommandError
	for _, b := range [][]byte{{200}, AppendCommand(nil, &CancelJob{Job: 1})} {
		_, err := DecodeCommand(b, Version+1)
		if !errors.As(err, &unknown) {
			t.Fatalf("got %v, want UnknownCommandError", err)
		}
	}
	if _, err := DecodeCommand(append(AppendCommand(nil, &CancelJob{Job: 1}), 0), Version); err == nil {
		t.Fatal("bytes after a command are accepted")
	}
}
