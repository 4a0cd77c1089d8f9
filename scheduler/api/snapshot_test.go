package api

import (
	"errors"
	"io"
	"testing"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// TestGetSnapshot: any server streams a state that has what the leader knew when it was asked, and ended jobs no more.
func TestGetSnapshot(t *testing.T) {
	t.Parallel()
	f := newFixture(t, "s1", "s2")
	f.node("a", 8)
	ctx := within(t)
	var ids []uint64
	for _, request := range []string{"one", "two"} {
		got, err := f.s1().client.SubmitJob(ctx, submitRequest(request))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, got.GetJob().GetId())
	}
	if _, err := f.s1().client.CancelJob(ctx, &schedulerv1.CancelJobRequest{Id: ids[0]}); err != nil {
		t.Fatal(err)
	}
	stream, err := f.servers["s2"].client.GetSnapshot(ctx, &schedulerv1.GetSnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var first *schedulerv1.GetSnapshotResponse
	var all []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = m
		}
		all = append(all, m.GetState()...)
	}
	s, err := cluster.Decode(all, first.GetEncoding())
	if err != nil || first.GetBytes() != uint64(len(all)) || first.GetIndex() != f.State().Index() || first.GetAtUnixNs() == 0 {
		t.Fatalf("%d of %d bytes, index %d of %d: %v", len(all), first.GetBytes(), first.GetIndex(), f.State().Index(), err)
	}
	if s.Jobs() != 1 || s.Job(cluster.JobID(ids[1])) == nil || s.Nodes() != 1 || s.ClusterID() != f.State().ClusterID() {
		t.Errorf("%d jobs, %d nodes in the snapshot of %s", s.Jobs(), s.Nodes(), s.ClusterID())
	}
}
