package control

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
)

// longStart is the start of a job with one worker on each of n GPUs, 8 on a node,
// with ids of the given length.
func longStart(n, idBytes int) *cluster.StartJob {
	start := &cluster.StartJob{Job: 1, Epoch: 1}
	for r := range n {
		start.Workers = append(start.Workers, cluster.Placement{
			Rank: cluster.Rank(r), Node: cluster.NodeID(fmt.Sprintf("%0*d", idBytes, r/8)),
			GPUs: []string{fmt.Sprintf("GPU-%0*d", idBytes, r)},
		})
	}
	return start
}

// TestOversizedStart: the largest gang fits into a log entry, and one whose ids
// make it too large is told so.
func TestOversizedStart(t *testing.T) {
	t.Parallel()
	usual, long := longStart(cluster.MaxGPUs, 36), longStart(cluster.MaxGPUs, 100)
	back, err := cluster.DecodeCommand(cluster.AppendCommand(nil, usual), cluster.Version)
	if diff := cmp.Diff(cluster.Command(usual), back); err != nil || diff != "" {
		t.Fatalf("a gang's start is read back otherwise: %v\n%s", err, diff)
	}
	if n, why := len(cluster.AppendCommand(nil, usual)), oversized(usual); n > cluster.MaxCommandBytes || why != "" {
		t.Errorf("the largest gang of usual ids takes %d bytes, and is told %q", n, why)
	}
	if why := oversized(long); !strings.Contains(why, "log entry") {
		t.Errorf("an oversized start is told %q", why)
	}
}

// TestOversizedGangIsToldOnce: in place of its start, which no log entry
// could hold, its reason is proposed, once.
func TestOversizedGangIsToldOnce(t *testing.T) {
	t.Parallel()
	const nodes, perNode, gpus = 16, cluster.MaxNodeGPUs, cluster.MaxGPUs
	s := &cluster.State{}
	apply := func(c cluster.Command) cluster.Result {
		r := s.Apply(1, 1, c)
		if r.Code != cluster.OK {
			t.Fatalf("%T: %s", c, r.Message)
		}
		return r
	}
	apply(&cluster.Init{ClusterID: "c", Version: 1})
	for i := range nodes {
		n := cluster.Node{ID: cluster.NodeID(fmt.Sprint(i)), Name: fmt.Sprint(i)}
		for g := range perNode {
			n.GPUs = append(n.GPUs, cluster.GPU{UUID: fmt.Sprintf("GPU-%0100d", i*perNode+g), Type: "h100", Healthy: true})
		}
		apply(&cluster.RegisterNode{Node: n})
	}
	submit := func(gpus int32) cluster.JobID {
		return apply(&cluster.SubmitJob{RequestID: fmt.Sprint(gpus), Spec: &cluster.JobSpec{Name: "j", Queue: "q", GPUs: gpus, Launch: cluster.LaunchPerGPU, Command: []string{"x"}}}).Job
	}
	huge := submit(gpus)
	first := Step(s, nil, 2, DefaultConfig())
	for _, c := range first {
		if n := len(cluster.AppendCommand(nil, c)); n > cluster.MaxCommandBytes {
			t.Errorf("%T takes %d bytes, a log entry holds %d", c, n, cluster.MaxCommandBytes)
		}
		apply(c)
	}
	if j := s.Job(huge); !strings.Contains(j.Reason, "log entry") {
		t.Fatalf("the oversized gang is %s: %s", j.State, j.Reason)
	}
	if again := Step(s, nil, 3, DefaultConfig()); len(again) != 0 {
		t.Errorf("what is known is proposed again: %d commands, the first a %T", len(again), again[0])
	}
}
