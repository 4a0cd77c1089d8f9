package planner

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// drawState makes a cluster of a few nodes, some jobs that hold GPUs and some that wait.
func drawState(t *rapid.T) *cluster.State {
	s := &cluster.State{}
	s.Apply(1, 1, &cluster.Init{ClusterID: "c", Version: 1})
	for i := range rapid.IntRange(0, 6).Draw(t, "nodes") {
		n := cluster.Node{ID: cluster.NodeID(fmt.Sprintf("n%d", i)), Name: fmt.Sprintf("n%d", i), CPUMilli: 8000, MemBytes: 1 << 40}
		for g := range rapid.IntRange(1, 4).Draw(t, "gpus") {
			typ := rapid.SampledFrom([]string{"a100", "h100"}).Draw(t, "type")
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("n%d/%d", i, g), Type: typ, Healthy: rapid.IntRange(0, 9).Draw(t, "sick") > 0})
		}
		s.Apply(1, 1, &cluster.RegisterNode{Node: n})
	}
	for i := range rapid.IntRange(0, 10).Draw(t, "jobs") {
		spec := &cluster.JobSpec{
			Name: "j", Queue: "q", Launch: rapid.SampledFrom([]cluster.LaunchMode{1, 2}).Draw(t, "launch"), Command: []string{"x"},
			GPUs: int32(rapid.IntRange(1, 6).Draw(t, "want")), Priority: int32(rapid.IntRange(0, 3).Draw(t, "priority")),
			CPUPerGPU: int64(rapid.SampledFrom([]int{0, 1000, 4000}).Draw(t, "cpus")),
		}
		if rapid.Bool().Draw(t, "shaped") && spec.GPUs%2 == 0 {
			spec.GPUsPerNode = 2
		}
		if rapid.Bool().Draw(t, "typed") {
			spec.GPUTypes = rapid.SampledFrom([][]string{{"h100"}, {"a100", "h100"}}).Draw(t, "types")
		}
		s.Apply(2, cluster.Time(i), &cluster.SubmitJob{RequestID: fmt.Sprint(i), Spec: spec})
		if i%3 == 0 {
			start(t, s, Make(s, 10, DefaultConfig()))
		}
	}
	return s
}

func start(t *rapid.T, s *cluster.State, p Plan) {
	for _, st := range p.Starts {
		if r := s.Apply(3, 10, &cluster.StartJob{Job: st.Job, Epoch: st.Epoch, Workers: st.Workers}); r.Code != cluster.OK {
			t.Fatalf("Apply refused the plan for job %d: %s", st.Job, r.Message)
		}
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestPlanLaws: Apply accepts all of every plan; a job left waiting has a
// reason and truly does not fit any more; equal states give equal plans.
func TestPlanLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		plan := Make(s, 10, DefaultConfig())
		if diff := cmp.Diff(plan, Make(decoded(t, s), 10, DefaultConfig())); diff != "" {
			t.Fatalf("a state and its copy plan differently:\n%s", diff)
		}
		waiting := s.Count(cluster.Pending) - len(plan.Starts)
		if len(plan.Reasons) != waiting {
			t.Fatalf("%d jobs wait, %d have a reason", waiting, len(plan.Reasons))
		}
		start(t, s, plan)
		for _, r := range plan.Reasons {
			if spec := s.Job(r.Job).Spec; fitsSomehow(s, spec) {
				t.Fatalf("job %d waits (%s) although its gang of %s fits", r.Job, r.Text, spec.Wants())
			}
		}
	})
}

func decoded(t *rapid.T, s *cluster.State) *cluster.State {
	var bytes []byte
	_ = s.Encode(func(b []byte) error { bytes = append(bytes, b...); return nil })
	d, err := cluster.Decode(bytes, cluster.Version)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fitsSomehow is a slow second opinion: is there any way to place the gang?
func fitsSomehow(s *cluster.State, spec *cluster.JobSpec) bool {
	for _, typ := range []string{"a100", "h100"} {
		if !cluster.AllowsType(spec, typ) {
			continue
		}
		room := int32(0)
		s.EachNode(func(n *cluster.Node) bool {
			k := int32(0)
			for i := range n.GPUs {
				if n.Usable(i) && n.GPUs[i].Type == typ {
					k++
				}
			}
			k = min(k, cluster.FitByResources(n, spec))
			if spec.GPUsPerNode > 0 && k >= spec.GPUsPerNode {
				k = spec.GPUsPerNode
			} else if spec.GPUsPerNode > 0 {
				k = 0
			}
			room += k
			return true
		})
		if room >= spec.GPUs {
			return true
		}
	}
	return false
}

func TestGangIsConsolidated(t *testing.T) {
	t.Parallel()
	s := &cluster.State{}
	s.Apply(1, 1, &cluster.Init{ClusterID: "c", Version: 1})
	for i, gpus := range []int{3, 8, 8, 2} {
		n := cluster.Node{ID: cluster.NodeID(fmt.Sprint(i)), Name: fmt.Sprint(i)}
		for g := range gpus {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("%d/%d", i, g), Type: "h100", Healthy: true})
		}
		s.Apply(1, 1, &cluster.RegisterNode{Node: n})
	}
	for want, nodes := range map[int32][]string{2: {"3"}, 3: {"0"}, 4: {"1"}, 8: {"1"}, 9: {"1", "3"}, 16: {"1", "2"}, 21: {"1", "2", "0", "3"}} {
		fork := s.Snapshot()
		fork.Apply(2, 2, &cluster.SubmitJob{RequestID: "r", Spec: &cluster.JobSpec{Name: "j", Queue: "q", GPUs: want, Launch: cluster.LaunchPerNode, Command: []string{"x"}}})
		plan := Make(fork, 3, DefaultConfig())
		var got []string
		for _, w := range plan.Starts[0].Workers {
			got = append(got, string(w.Node))
		}
		if !slices.Equal(got, nodes) {
			t.Errorf("%d GPUs: got nodes %v, want %v", want, got, nodes)
		}
	}
}

// BenchmarkMake plans once over a full cluster of 1,250 nodes with 10,000 jobs waiting.
func BenchmarkMake(b *testing.B) {
	s := &cluster.State{}
	s.Apply(1, 1, &cluster.Init{ClusterID: "c", Version: 1})
	for i := range 1250 {
		n := cluster.Node{ID: cluster.NodeID(fmt.Sprintf("n%04d", i)), Name: fmt.Sprintf("n%04d", i), CPUMilli: 64000, MemBytes: 1 << 40}
		for g := range 8 {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("n%d/%d", i, g), Type: "h100", Healthy: true})
		}
		s.Apply(1, 1, &cluster.RegisterNode{Node: n})
	}
	for i := range 15_000 {
		s.Apply(2, cluster.Time(i), &cluster.SubmitJob{RequestID: fmt.Sprint(i), Spec: &cluster.JobSpec{
			Name: "j", Queue: "q", GPUs: int32(1 + i%3), Launch: cluster.LaunchPerGPU, Command: []string{"x"},
		}})
	}
	starts := 0
	for b.Loop() {
		starts += len(Make(s, cluster.Time(time.Second), DefaultConfig()).Starts)
	}
	b.ReportMetric(float64(starts)/b.Elapsed().Seconds(), "placements/s")
}
