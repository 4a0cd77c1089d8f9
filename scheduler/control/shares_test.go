package control

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
)

// begin submits a job and starts it on the given GPUs of node a or b, one worker each.
func (st *story) begin(t *testing.T, edit func(*cluster.JobSpec), gpus ...string) cluster.JobID {
	t.Helper()
	st.index++
	spec := &cluster.JobSpec{Name: "part", Command: []string{"true"}, GPUs: 1}
	edit(spec)
	spec.Normalize()
	r := st.s.Apply(st.index, st.now, &cluster.SubmitJob{RequestID: fmt.Sprint("r", st.index), User: "ann", Spec: spec})
	if r.Code != cluster.OK {
		t.Fatal(r.Message)
	}
	start := &cluster.StartJob{Job: r.Job, Epoch: 1}
	for i, uuid := range gpus {
		start.Workers = append(start.Workers, cluster.Placement{Rank: cluster.Rank(i), Node: cluster.NodeID(uuid[:1]), GPUs: []string{uuid}})
	}
	st.must(t, start)
	return r.Job
}

func share(milli int32) func(*cluster.JobSpec) {
	return func(s *cluster.JobSpec) { s.GPUMilli = milli }
}

// TestOrderOfShares: each holder of a GPU has its assignment with its part, by
// job, and no port that another one could have.
func TestOrderOfShares(t *testing.T) {
	t.Parallel()
	st := newStory(t)
	st.must(t, &cluster.RegisterNode{Node: machine("a", 2)})
	half := st.begin(t, share(500), "a/1")
	whole := st.begin(t, share(0), "a/0")
	third := st.begin(t, share(333), "a/1")
	type row struct {
		Job     cluster.JobID
		Workers []AssignedWorker
		Port    int
	}
	want := []row{
		{half, []AssignedWorker{{GPUs: []string{"a/1"}, Milli: 500}}, 0},
		{whole, []AssignedWorker{{GPUs: []string{"a/0"}, Milli: cluster.WholeGPU}}, masterPortBase},
		{third, []AssignedWorker{{GPUs: []string{"a/1"}, Milli: 333}}, 0},
	}
	rows := func() (out []row) {
		for _, a := range orderOf(t, st, "a").Assignments {
			out = append(out, row{a.Job.ID, a.Workers, a.MasterPort})
		}
		return out
	}
	if diff := cmp.Diff(want, rows()); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	// One of them ends: the other's order stays as it was.
	st.must(t, &cluster.ReportWorkers{Node: "a", Workers: []cluster.WorkerReport{{Job: half, Epoch: 1, State: cluster.WorkerExited}}})
	if diff := cmp.Diff(want[1:], rows()); diff != "" {
		t.Errorf("order after one share ended (-want +got):\n%s", diff)
	}
}

// TestOrderOfAnElasticGang: sizes come from what the gang has, not from what it would like.
func TestOrderOfAnElasticGang(t *testing.T) {
	t.Parallel()
	elastic := func(s *cluster.JobSpec) { s.GPUs, s.MinGPUs = 8, 2 }
	st := newStory(t)
	for _, id := range []cluster.NodeID{"a", "b"} {
		st.must(t, &cluster.RegisterNode{Node: machine(id, 4)})
	}
	id := st.begin(t, elastic, "a/0", "a/1", "b/3")
	a := orderOf(t, st, "b").Assignments[0]
	if len(a.Job.Workers) != 3 || a.NodeRank != 1 {
		t.Errorf("the gang has %d workers, and node b is number %d, want 3 and 1", len(a.Job.Workers), a.NodeRank)
	}
	if diff := cmp.Diff([]GangNode{{Host: "host-a", GPUs: 2, Workers: 2}, {Host: "host-b", GPUs: 1, Workers: 1}}, a.Nodes); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	// It grows: the epoch is another one, and so are the sizes.
	st.must(t, &cluster.EvictJob{Job: id, Epoch: 1, Cause: cluster.StopResize, Reason: "grows to 4 GPUs"})
	for r := range cluster.Rank(3) {
		st.must(t, &cluster.ReportWorkers{Node: st.s.Job(id).Workers[r].Node, Workers: []cluster.WorkerReport{
			{Job: id, Epoch: 1, Rank: r, State: cluster.WorkerExited, Stopped: true},
		}})
	}
	start := &cluster.StartJob{Job: id, Epoch: 2}
	for i := range 4 {
		start.Workers = append(start.Workers, cluster.Placement{Rank: cluster.Rank(i), Node: "a", GPUs: []string{fmt.Sprintf("a/%d", i)}})
	}
	st.must(t, start)
	a = orderOf(t, st, "a").Assignments[0]
	if diff := cmp.Diff([]GangNode{{Host: "host-a", GPUs: 4, Workers: 4}}, a.Nodes); diff != "" || a.Restarts != 1 || len(a.Workers) != 4 {
		t.Errorf("after growing: %d workers, %d restarts, nodes (-want +got):\n%s", len(a.Workers), a.Restarts, diff)
	}
	if got := orderOf(t, st, "b").Assignments; len(got) != 0 {
		t.Errorf("node b still has %v", got)
	}
}
