package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// TestWholeJob: an API client sees what the state knows of arrays, preemptions,
// reservations and service had.
func TestWholeJob(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.node("a", 1)
	id := f.submit(func(s *cluster.JobSpec) {
		s.GPUs, s.GPUMilli = 1, 250
		s.Array = cluster.ArraySpec{First: 4, Last: 6, Step: 2}
	})
	f.start(id, "a:0")
	f.apply(&cluster.KeepNodes{Job: id + 1, Nodes: []cluster.NodeID{"a", "gone"}, At: 99})
	got, err := f.s1().client.ListJobs(within(t), &schedulerv1.ListJobsRequest{Array: uint64(id)})
	if err != nil || len(got.GetJobs()) != 2 {
		t.Fatalf("%v, %v", got, err)
	}
	if m := got.GetJobs()[0]; m.GetArray() != uint64(id) || m.GetArrayIndex() != 6 || m.GetKept() != nil || m.GetHeldGpus() != 0 {
		t.Errorf("second member: %v", m)
	}
	one, err := f.s1().client.GetJob(within(t), &schedulerv1.GetJobRequest{Id: uint64(id) + 1})
	if err != nil {
		t.Fatal(err)
	}
	kept := one.GetJob().GetKept()
	want := &schedulerv1.Kept{Nodes: []string{"node-a", "gone"}, StartUnixNs: 99, MadeUnixNs: kept.GetMadeUnixNs()}
	if diff := cmp.Diff(want, kept, protocmp.Transform()); diff != "" || kept.GetMadeUnixNs() == 0 {
		t.Errorf("%v\n%s", kept, diff)
	}
	j := f.State().Job(id)
	p := jobToProto(j, j.StartedAt.Add(8*time.Second))
	if p.GetAttainedGpuSeconds() != 2 || p.GetHeldGpus() != 1 || p.GetArrayIndex() != 4 {
		t.Errorf("first member: %v", p)
	}
	nodes, err := f.s1().client.ListNodes(within(t), &schedulerv1.ListNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	shares := []*schedulerv1.GPUShare{{JobId: uint64(id), Epoch: 1, Milli: 250}}
	if diff := cmp.Diff(shares, nodes.GetNodes()[0].GetGpus()[0].GetShares(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestNodeToProto(t *testing.T) {
	t.Parallel()
	got := nodeToProto(&cluster.Node{
		Taints: []cluster.Taint{{Key: "team", Value: "vision"}}, Drain: &cluster.Drain{Reason: "fan", By: "ann", Since: 5, Deadline: 9},
		GPUs: []cluster.GPU{{UUID: "x", Island: 1, NUMA: 1}, {UUID: "y", NUMA: cluster.NUMAUnknown}},
	}, Telemetry{})
	want := &schedulerv1.Node{
		HeartbeatAgeMs: -1, Taints: map[string]string{"team": "vision"},
		Drain: &schedulerv1.Drain{Reason: "fan", By: "ann", SinceUnixNs: 5, DeadlineUnixNs: 9},
		Gpus:  []*schedulerv1.GPU{{Uuid: "x", Island: 1, NumaNode: proto.Int32(1)}, {Uuid: "y"}},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
