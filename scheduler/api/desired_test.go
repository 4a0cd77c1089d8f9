package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

func noPeers(cluster.JobID, cluster.Epoch, int32) ([]string, []byte) { return nil, nil }

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
	peers := func(j cluster.JobID, e cluster.Epoch, f int32) ([]string, []byte) {
		if j == id && e == 1 && f == 1 {
			return []string{"x:1", "x:2", "y:3"}, []byte("secret")
		}
		return nil, nil
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
			MasterPort: 29502, MaxRestarts: 5, ResumeFrom: "/ckpt/10", CheckpointKeep: 2,
			Peers: []string{"x:1", "x:2", "y:3"}, RingSecret: []byte("secret"), Formation: 1, Members: []int32{0, 1, 2},
		}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("desired (-want +got):\n%s", diff)
	}
	// A worker that has ended is not to be started again; its neighbour keeps its local rank.
	m.report(id, cluster.WorkerExited, 0, 0)
	got = desiredFor(m.State(), "a", statusesFromProto([]*agentv1.WorkerStatus{exited(1, 1, 0, 0), runs(1, 1, 1)}, 0), noPeers, 7)
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
	if got := desiredFor(m.State(), "nobody", nil, noPeers, 7); got != nil {
		t.Errorf("nothing can be said to an unknown node: %v", got)
	}
}

// TestDesiredOfArrayMembersWithShares: two members of an array share a GPU.
func TestDesiredOfArrayMembersWithShares(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 1)
	first := m.submit(func(s *cluster.JobSpec) {
		s.GPUs, s.GPUMilli, s.Array = 1, 400, cluster.ArraySpec{First: 3, Last: 5, Step: 2}
	})
	m.start(first, "a:0")
	m.start(first+1, "a:0")
	got := desiredFor(m.State(), "a", nil, noPeers, 1).GetAssignments()
	if len(got) != 2 {
		t.Fatalf("got %v, want two assignments", got)
	}
	for i, a := range got {
		want := &agentv1.AssignedWorker{GpuUuids: []string{"a-gpu0"}, GpuMilli: 400}
		if diff := cmp.Diff([]*agentv1.AssignedWorker{want}, a.GetWorkers(), protocmp.Transform()); diff != "" {
			t.Errorf("member %d: workers (-want +got):\n%s", i, diff)
		}
		if a.GetArrayJobId() != uint64(first) || a.GetArrayIndex() != int32(3+2*i) || a.GetMasterPort() != 0 || a.GetWorldSize() != 1 {
			t.Errorf("member %d is %v", i, a)
		}
	}
}

// TestDesiredOfAnElasticGang: the world is as large as the allocation.
func TestDesiredOfAnElasticGang(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 4)
	id := m.submit(func(s *cluster.JobSpec) { s.GPUs, s.MinGPUs = 4, 1 })
	m.start(id, "a:1", "a:2")
	a := desiredFor(m.State(), "a", nil, noPeers, 1).GetAssignments()[0]
	if a.GetWorldSize() != 2 || len(a.GetWorkers()) != 2 || a.GetNodes()[0].GetGpus() != 2 || a.GetArrayJobId() != 0 {
		t.Errorf("got %v, want a world of 2", a)
	}
}

func TestDesiredStop(t *testing.T) {
	t.Parallel()
	m := newModel(t)
	m.node("a", 2)
	id := m.submit(nil)
	m.start(id, "a:0", "a:1")
	m.apply(&cluster.CancelJob{Job: id, Reason: "enough"})
	want := &agentv1.Stop{Reason: m.State().Job(id).StopReason, WarnMs: 30_000, GraceMs: 10_000}
	got := desiredFor(m.State(), "a", nil, noPeers, 1).GetAssignments()[0].GetStop()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("stop (-want +got):\n%s", diff)
	}
}

func TestStatusesFromProto(t *testing.T) {
	t.Parallel()
	metrics := map[string]float64{"b": 2, "a": 1}
	in := []*agentv1.WorkerStatus{
		{
			Key: key(3, 2, 0), State: agentv1.WorkerState_WORKER_STATE_EXITED, ExitCode: 1, Signal: 9, PeerLost: true, Stopped: true,
			Message: "boom", GpuUuids: []string{"g"}, Checkpoint: &agentv1.Checkpoint{Step: 5, Path: "/c/5", Bytes: 1},
			Progress: &agentv1.Progress{Step: 9, Metrics: metrics},
		},
		{Key: key(3, 2, 1), State: agentv1.WorkerState_WORKER_STATE_RUNNING, Progress: &agentv1.Progress{Step: 9}},
		{Key: key(3, 2, 2), State: agentv1.WorkerState_WORKER_STATE_LOST, Checkpoint: &agentv1.Checkpoint{Path: "/c/\n"}},
		{Key: key(3, 2, 3), State: 99},
	}
	want := []control.WorkerStatus{
		{
			Key: control.WorkerKey{Job: 3, Epoch: 2, Rank: 0}, State: cluster.WorkerExited, ExitCode: 1, Signal: 9, PeerLost: true, Stopped: true,
			Message: "boom", GPUs: []string{"g"}, Checkpoint: &cluster.Checkpoint{Step: 5, Path: "/c/5", Bytes: 1},
			Progress: &cluster.Progress{Step: 9, Metrics: []cluster.Metric{{Name: "a", Value: 1}, {Name: "b", Value: 2}}},
		},
		{Key: control.WorkerKey{Job: 3, Epoch: 2, Rank: 1}, State: cluster.WorkerRunning},
		{Key: control.WorkerKey{Job: 3, Epoch: 2, Rank: 2}, State: cluster.WorkerLost},
		{Key: control.WorkerKey{Job: 3, Epoch: 2, Rank: 3}},
	}
	if diff := cmp.Diff(want, statusesFromProto(in, 0)); diff != "" {
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
