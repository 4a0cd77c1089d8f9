package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

func noPeers(cluster.JobID, cluster.Epoch) []string { return nil }

func key(job, epoch uint64, rank int32) *agentv1.WorkerKey {
	return &agentv1.WorkerKey{JobId: job, Epoch: epoch, Rank: rank}
}

func runs(job, epoch uint64, rank int32) *agentv1.WorkerStatus {
	return &agentv1.WorkerStatus{Key: key(job, epoch, rank), State: agentv1.WorkerState_WORKER_STATE_RUNNING}
}

func exited(job, epoch uint64, rank, code int32) *agentv1.WorkerStatus {
	return &agentv1.WorkerStatus{Key: key(job, epoch, rank), State: agentv1.WorkerState_WORKER_STATE_EXITED, ExitCode: code}
}

func TestDesiredOfAGang(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 4)
	m.node("b", 4)
	id := m.submit(func(s *cluster.JobSpec) {
		s.GPUs, s.Retries, s.Env, s.KeepCkpts = 3, 5, []cluster.EnvVar{{Name: "K", Value: "v"}}, 2
	})
	m.start(id, "a:2", "a:3", "b:0")
	m.report(id, cluster.WorkerRunning, 0, 0, 1, 2)
	m.apply(&cluster.RecordCheckpoint{Job: id, Epoch: 1, Step: 10, Path: "/ckpt/10"})
	peers := func(j cluster.JobID, e cluster.Epoch) []string {
		if j == id && e == 1 {
			return []string{"x:1", "x:2", "y:3"}
		}
		return nil
	}
	got := desiredFor(m.State(), "b", nil, peers, 7)
	want := &agentv1.Desired{
		Fence: &agentv1.Fence{Term: 7, Index: m.State().Index()},
		Assignments: []*agentv1.Assignment{{
			JobId: 1, Epoch: 1, JobName: "train", Queue: "default", User: "ann",
			Workers:   []*agentv1.AssignedWorker{{Rank: 2, LocalRank: 0, GpuUuids: []string{"b-gpu0"}}},
			WorldSize: 3, NodeRank: 1,
			Nodes:   []*agentv1.GangNode{{Host: "host-a", Gpus: 2, Workers: 2}, {Host: "host-b", Gpus: 1, Workers: 1}},
			Command: []string{"true"}, Env: map[string]string{"K": "v"},
			MasterPort: masterPortBase + 2, MaxRestarts: 5, ResumeFrom: "/ckpt/10", CheckpointKeep: 2,
			Peers: []string{"x:1", "x:2", "y:3"},
		}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("desired (-want +got):\n%s", diff)
	}
	// A worker that has ended is not to be started again; its neighbour keeps its local rank.
	m.report(id, cluster.WorkerExited, 0, 0)
	got = desiredFor(m.State(), "a", []*agentv1.WorkerStatus{exited(1, 1, 0, 0), runs(1, 1, 1)}, noPeers, 7)
	if diff := cmp.Diff([]*agentv1.AssignedWorker{{Rank: 1, LocalRank: 1, GpuUuids: []string{"a-gpu3"}}}, got.GetAssignments()[0].GetWorkers(), protocmp.Transform()); diff != "" {
		t.Errorf("workers (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]*agentv1.WorkerKey{key(1, 1, 0)}, got.GetAcknowledged(), protocmp.Transform()); diff != "" {
		t.Errorf("acknowledged (-want +got):\n%s", diff)
	}
	// All of this node's workers have ended, others run: nothing to do here.
	m.report(id, cluster.WorkerExited, 0, 1)
	if got := desiredFor(m.State(), "a", nil, noPeers, 7); len(got.GetAssignments()) != 0 {
		t.Errorf("ended workers are still assigned: %v", got)
	}
	if got := desiredFor(m.State(), "nobody", nil, noPeers, 7); len(got.GetAssignments()) != 0 || got.GetFence().GetTerm() != 7 {
		t.Errorf("an unknown node should have nothing: %v", got)
	}
}

func TestDesiredStop(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cause func(m *model, id cluster.JobID)
		warn  int64
	}{
		"cancel":       {func(m *model, id cluster.JobID) { m.apply(&cluster.CancelJob{Job: id}) }, 30_000},
		"time limit":   {func(m *model, id cluster.JobID) { evict(m, id, cluster.StopTimeLimit) }, 30_000},
		"preempt":      {func(m *model, id cluster.JobID) { evict(m, id, cluster.StopPreempt) }, 30_000},
		"launch stuck": {func(m *model, id cluster.JobID) { evict(m, id, cluster.StopLaunchStuck) }, 30_000},
		"failure":      {func(m *model, id cluster.JobID) { m.report(id, cluster.WorkerExited, 1, 1) }, 0},
		"node lost":    {func(m *model, _ cluster.JobID) { m.apply(&cluster.LoseNode{Node: "b", Incarnation: 1, Reason: "x"}) }, 0},
	} {
		m := newModel(t)
		m.node("a", 1)
		m.node("b", 1)
		id := m.submit(nil)
		m.start(id, "a:0", "b:0")
		m.report(id, cluster.WorkerRunning, 0, 0, 1)
		c.cause(m, id)
		d := desiredFor(m.State(), "a", nil, noPeers, 1)
		if len(d.GetAssignments()) != 1 {
			t.Errorf("%s: no assignment in %v", name, d)
			continue
		}
		stop := d.GetAssignments()[0].GetStop()
		if stop == nil || stop.GetWarnMs() != c.warn || stop.GetGraceMs() != 10_000 || stop.GetReason() != m.State().Job(id).StopReason {
			t.Errorf("%s: stop is %v", name, stop)
		}
	}
}

func evict(m *model, id cluster.JobID, cause cluster.StopCause) {
	m.apply(&cluster.EvictJob{Job: id, Epoch: 1, Cause: cause, Reason: "because"})
}

func TestAcknowledged(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 2)
	id := m.submit(func(s *cluster.JobSpec) { s.Retries = 1 })
	m.start(id, "a:0", "a:1")
	m.report(id, cluster.WorkerRunning, 0, 0, 1)
	acked := func(w *agentv1.WorkerStatus) bool {
		return len(desiredFor(m.State(), "a", []*agentv1.WorkerStatus{w}, noPeers, 1).GetAcknowledged()) == 1
	}
	check := func(why string, w *agentv1.WorkerStatus, want bool) {
		t.Helper()
		if acked(w) != want {
			t.Errorf("%s: acknowledged %t", why, !want)
		}
	}
	check("a running worker has nothing to acknowledge", runs(1, 1, 0), false)
	check("not recorded yet", exited(1, 1, 0, 1), false)
	check("an epoch that the state does not know", exited(1, 2, 0, 1), false)
	check("a job that is forgotten", exited(77, 1, 0, 1), true)
	// The node is lost while its workers run, and comes back with them.
	m.apply(&cluster.LoseNode{Node: "a", Incarnation: 1, Reason: "x"})
	m.apply(&cluster.RegisterNode{Node: nodeOf(hello("a", 2)), Running: running([]*agentv1.WorkerStatus{runs(1, 1, 0)})})
	check("a stale worker's end is news", exited(1, 1, 0, 1), false)
	check("another's is over with its epoch", exited(1, 1, 1, 1), true)
	m.apply(&cluster.ReportWorkers{Node: "a", Workers: []cluster.WorkerReport{{Job: 1, Epoch: 1, Rank: 0, State: cluster.WorkerExited}}})
	check("recorded", exited(1, 1, 0, 1), true)
}

func TestNews(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 2)
	id := m.submit(nil)
	m.start(id, "a:0", "a:1")
	noProgress := func(cluster.JobID, cluster.Epoch) *cluster.Progress { return nil }
	tell := func(workers ...*agentv1.WorkerStatus) []cluster.Command {
		cmds := news(m.State(), "a", workers, noProgress)
		if len(cmds) > 0 {
			m.apply(cmds...)
		}
		if again := news(m.State(), "a", workers, noProgress); len(again) != 0 {
			t.Errorf("told twice: %v", again)
		}
		return cmds
	}
	if got := tell(); len(got) != 0 {
		t.Errorf("workers that have not started are no news: %v", got)
	}
	if got := tell(runs(1, 1, 0), runs(1, 1, 1)); len(got) != 1 || len(got[0].(*cluster.ReportWorkers).Workers) != 2 {
		t.Errorf("both start: %v", got)
	}
	if st := m.State().Job(id).State; st != cluster.Running {
		t.Fatalf("the job is %s", st)
	}
	// The checkpoint must be taken though the same report ends the epoch.
	zero, one := exited(1, 1, 0, 0), exited(1, 1, 1, 0)
	zero.Checkpoint = &agentv1.Checkpoint{Step: 5, Path: "/c/5", Bytes: 1}
	one.Checkpoint = &agentv1.Checkpoint{Step: 4, Path: "/c/4", Bytes: 1}
	zero.Progress = &agentv1.Progress{Step: 9, Metrics: map[string]float64{"b": 2, "a": 1}}
	got := tell(zero, one)
	if len(got) != 2 {
		t.Fatalf("got %v, want a checkpoint and a report", got)
	}
	j := m.State().Job(id)
	if j.State != cluster.Succeeded || j.Checkpoint == nil || j.Checkpoint.Step != 5 {
		t.Errorf("the job is %s with checkpoint %v", j.State, j.Checkpoint)
	}
	if diff := cmp.Diff(&cluster.Progress{Step: 9, Metrics: []cluster.Metric{{Name: "a", Value: 1}, {Name: "b", Value: 2}}}, j.Progress); diff != "" {
		t.Errorf("final progress (-want +got):\n%s", diff)
	}
}

func TestNewsOfVanishedWorkers(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 2)
	id := m.submit(nil)
	m.start(id, "a:0", "a:1")
	m.report(id, cluster.WorkerRunning, 0, 0)
	cmds := news(m.State(), "a", nil, func(cluster.JobID, cluster.Epoch) *cluster.Progress { return nil })
	want := []cluster.WorkerReport{{Job: 1, Epoch: 1, Rank: 0, State: cluster.WorkerLost, Message: msgVanished}}
	if len(cmds) != 1 {
		t.Fatalf("got %v", cmds)
	}
	if diff := cmp.Diff(want, cmds[0].(*cluster.ReportWorkers).Workers); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProgressIsBounded(t *testing.T) {
	t.Parallel()
	p := &agentv1.Progress{Metrics: map[string]float64{}}
	for i := range 100 {
		p.Metrics[string(rune('A'+i%26))+string(rune('a'+i/26))] = float64(i)
	}
	p.Metrics[string(make([]byte, maxMetricName+1))] = 1
	if got := progressFromProto(p); len(got.Metrics) != cluster.MaxMetrics {
		t.Errorf("%d metrics, want %d", len(got.Metrics), cluster.MaxMetrics)
	}
}
