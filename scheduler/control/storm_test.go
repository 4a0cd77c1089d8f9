package control

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestPriorityStorm: ten thousand jobs of high priority at once on a full
// cluster. Each step stays bounded, nobody is stopped without need or twice, and
// once the storm is over those that had to yield go on.
func TestPriorityStorm(t *testing.T) {
	t.Parallel()
	const nodes, gpus, storm = 32, 8, 10_000
	s, now, index := &cluster.State{}, cluster.Time(time.Hour), uint64(0)
	apply := func(c cluster.Command) cluster.Result {
		index++
		r := s.Apply(index, now, c)
		if r.Code != cluster.OK {
			t.Fatalf("%T: %s", c, r.Message)
		}
		return r
	}
	apply(&cluster.Init{ClusterID: "c", Version: cluster.Version})
	for i := range nodes {
		n := cluster.Node{ID: cluster.NodeID(fmt.Sprintf("n%02d", i)), Name: fmt.Sprint("n", i), Incarnation: 1}
		for g := range gpus {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%s/%d", n.ID, g), Type: "h100", Healthy: true})
		}
		apply(&cluster.RegisterNode{Node: n})
	}
	submit := func(name string, size, priority, members int32) cluster.JobID {
		sp := &cluster.JobSpec{
			Name: name, Queue: "default", GPUs: size, Launch: cluster.LaunchPerNode, Command: []string{"x"}, Priority: priority, Preemptible: priority < 90,
		}
		if members > 0 {
			sp.Array = cluster.ArraySpec{Last: members - 1, Step: 1}
		}
		return apply(&cluster.SubmitJob{RequestID: name, User: "ann", Spec: sp}).Job
	}
	report := func(st cluster.WorkerState, keep func(*cluster.Job) bool) (ended int) {
		var all []*cluster.Job
		s.EachHolding(func(j *cluster.Job) bool {
			if keep(j) {
				all = append(all, j)
			}
			return true
		})
		for _, j := range all {
			for _, w := range j.Workers {
				apply(&cluster.ReportWorkers{Node: w.Node, Workers: []cluster.WorkerReport{{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: st, Stopped: j.State == cluster.Stopping}}})
			}
		}
		return len(all)
	}
	starting := func(j *cluster.Job) bool { return j.State == cluster.Starting }
	stopping := func(j *cluster.Job) bool { return j.State == cluster.Stopping }
	high := func(j *cluster.Job) bool { return j.Spec.Priority == 90 && j.State == cluster.Running }
	st := NewStepper(DefaultConfig())
	step := func() {
		now = now.Add(time.Second)
		cmds, _ := st.Step(s, nil, now)
		said := 0
		for _, c := range cmds {
			if e, ok := c.(*cluster.ExplainJobs); ok {
				said += len(e.Jobs)
			}
			apply(c)
		}
		if most := DefaultConfig().Planner.MaxExplained; said > most || len(cmds) > 3*nodes*gpus {
			t.Fatalf("a step of %d commands tells %d jobs why they wait", len(cmds), said)
		}
		report(cluster.WorkerRunning, starting)
		report(cluster.WorkerExited, stopping)
	}
	for i := range nodes {
		submit(fmt.Sprint("low", i), gpus, 20, 0)
	}
	step()
	now = now.Add(time.Hour)
	first := submit("storm", 1, 90, storm)
	for range 20 {
		step()
	}
	if n := s.Count(cluster.Running); n != nodes*gpus || s.Job(first).State != cluster.Running {
		t.Fatalf("%d jobs run 20 s after the storm, want one on each of %d GPUs", n, nodes*gpus)
	}
	if r := s.Job(first + storm - 1).Reason; !strings.Contains(r, "too few are free") {
		t.Errorf("the last of them says %q", r)
	}
	for ended := 0; ended < storm; {
		n := report(cluster.WorkerExited, high)
		if ended += n; n == 0 {
			t.Fatalf("nobody runs after %d of them", ended)
		}
		step()
	}
	for range 3 {
		step()
	}
	if n := s.Count(cluster.Running); n != nodes {
		t.Errorf("%d of %d run again after the storm", n, nodes)
	}
	s.EachJob(func(j *cluster.Job) bool {
		if j.Preemptions > 1 {
			t.Errorf("job %d (priority %d) was stopped %d times", j.ID, j.Spec.Priority, j.Preemptions)
		}
		return true
	})
	if err := s.Check(); err != nil {
		t.Error(err)
	}
}
