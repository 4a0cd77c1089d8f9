package planner

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// sled is a cluster on which jobs run for a fixed number of rounds.
type sled struct {
	t      *rapid.T
	s      *cluster.State
	now    cluster.Time
	ends   map[cluster.JobID]int // round in which a running job ends
	round  int
	lasts  int
	serial int
}

func (w *sled) apply(c cluster.Command) cluster.Result {
	r := w.s.Apply(1, w.now, c)
	if r.Code != cluster.OK {
		w.t.Fatalf("%T: %s", c, r.Message)
	}
	return r
}

func (w *sled) submit(spec cluster.JobSpec) cluster.JobID {
	w.serial++
	spec.Name, spec.Queue, spec.Launch, spec.Command = "j", "q", cluster.LaunchPerNode, []string{"x"}
	return w.apply(&cluster.SubmitJob{RequestID: fmt.Sprint(w.serial), Spec: &spec}).Job
}

// turn ends the jobs whose time is over, then starts what the planner says.
func (w *sled) turn() Plan {
	w.round++
	w.now = w.now.Add(time.Second)
	for id := cluster.JobID(1); int(id) <= w.serial; id++ {
		if end, runs := w.ends[id]; !runs || end > w.round {
			continue
		}
		j := w.s.Job(id)
		for _, worker := range j.Workers {
			w.apply(&cluster.ReportWorkers{Node: worker.Node, Workers: []cluster.WorkerReport{{Job: id, Epoch: j.Epoch, Rank: worker.Rank, State: cluster.WorkerExited}}})
		}
		delete(w.ends, id)
	}
	p := Make(w.s, w.now, DefaultConfig())
	for _, st := range p.Starts {
		w.apply(&cluster.StartJob{Job: st.Job, Epoch: st.Epoch, Workers: st.Workers})
		w.ends[st.Job] = w.round + 1 + int(st.Job)%w.lasts
	}
	return p
}

// TestHeldGangStarts: whatever small jobs keep coming, a gang that has waited
// HoldAfter starts once the jobs that ran then have had time to end.
func TestHeldGangStarts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &sled{t: t, s: &cluster.State{}, ends: map[cluster.JobID]int{}, lasts: rapid.IntRange(1, 5).Draw(t, "lasts")}
		w.apply(&cluster.Init{ClusterID: "c", Version: 1})
		nodes := rapid.IntRange(1, 5).Draw(t, "nodes")
		for i := range nodes {
			n := cluster.Node{ID: cluster.NodeID(fmt.Sprint(i)), Name: fmt.Sprint(i)}
			for g := range 4 {
				n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%d/%d", i, g), Type: "h100", Healthy: true})
			}
			w.apply(&cluster.RegisterNode{Node: n})
		}
		small := func() {
			for range rapid.IntRange(0, 6).Draw(t, "arrivals") {
				w.submit(cluster.JobSpec{GPUs: int32(rapid.IntRange(1, 4).Draw(t, "gpus"))})
			}
		}
		small()
		w.turn()
		gang := w.submit(cluster.JobSpec{GPUs: int32(4 * rapid.IntRange(1, nodes).Draw(t, "gang")), GPUsPerNode: 4})
		w.now = w.now.Add(DefaultConfig().HoldAfter)
		// Older jobs go first, one after the other at worst; then each round
		// keeps at least what was free, and a node drains within lasts+1.
		for range (w.serial + nodes + 1) * (w.lasts + 2) {
			small()
			w.turn()
			if w.s.Job(gang).Epoch > 0 {
				return
			}
		}
		t.Fatalf("the gang of %s starves: %s", w.s.Job(gang).Spec.Wants(), w.s.Job(gang).Reason)
	})
}

// TestOnlyWhatTheGangNeedsIsKept: the rest of the cluster goes on, and a gang
// that no live node could hold keeps nothing.
func TestOnlyWhatTheGangNeedsIsKept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &sled{t: t, s: &cluster.State{}, ends: map[cluster.JobID]int{}, lasts: 1}
		w.apply(&cluster.Init{ClusterID: "c", Version: 1})
		for i, typ := range []string{"h100", "h100", "h100", "a100"} {
			n := cluster.Node{ID: cluster.NodeID(fmt.Sprint(i)), Name: fmt.Sprint(i)}
			for g := range 4 {
				n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%d/%d", i, g), Type: typ, Healthy: true})
			}
			w.apply(&cluster.RegisterNode{Node: n})
			w.submit(cluster.JobSpec{GPUs: 1, GPUTypes: []string{typ}})
		}
		w.ends = map[cluster.JobID]int{}
		for _, st := range Make(w.s, w.now, DefaultConfig()).Starts {
			w.apply(&cluster.StartJob{Job: st.Job, Epoch: st.Epoch, Workers: st.Workers}) // these never end
		}
		lost := rapid.Bool().Draw(t, "lost")
		w.submit(cluster.JobSpec{GPUs: 12, GPUsPerNode: 4, GPUTypes: []string{"h100"}})
		if lost {
			w.apply(&cluster.LoseNode{Node: "2", Reason: "gone"})
		}
		w.now = w.now.Add(DefaultConfig().HoldAfter)
		same, other := w.submit(cluster.JobSpec{GPUs: 1, GPUTypes: []string{"h100"}}), w.submit(cluster.JobSpec{GPUs: 1, GPUTypes: []string{"a100"}})
		p := w.turn()
		if w.s.Job(other).Epoch != 1 {
			t.Fatal("a job that could use none of the gang's GPUs waits behind it")
		}
		if started := w.s.Job(same).Epoch == 1; started != lost {
			t.Fatalf("with a node lost: %v; the job behind the gang started: %v, reasons %v", lost, started, p.Reasons)
		}
		if !lost && !strings.Contains(p.Reasons[len(p.Reasons)-1].Text, "waits behind job 5 (priority 0, 12 GPUs of type h100, 4 on each node)") {
			t.Fatalf("reasons %v", p.Reasons)
		}
	})
}
