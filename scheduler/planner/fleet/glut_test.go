package fleet

import (
	"fmt"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestGlut: where few GPUs wait beside a third of one for the two thirds that
// the mix asks for as often, a third opens another GPU; where many do, it joins
// one of them.
func TestGlut(t *testing.T) {
	t.Parallel()
	joins := func(waiting int) bool {
		f := New(cluster.ScoreGangline, nil)
		for i := range 400 {
			n := &cluster.Node{ID: cluster.NodeID(fmt.Sprintf("n%03d", i)), State: cluster.NodeReady, CPUMilli: 1 << 40, MemBytes: 1 << 50}
			g := cluster.GPU{UUID: string(n.ID), Type: "h100", Healthy: true}
			switch {
			case i < waiting:
				g.Shares = []cluster.Share{{Job: 1, Epoch: 1, Milli: 320}}
			case i < 380:
				g.Job = 2
			}
			n.GPUs = []cluster.GPU{g}
			f.Put(n)
		}
		f.SetMix([]MixItem{{GPUs: 1, Share: 320, Weight: 1}, {GPUs: 1, Share: 650, Weight: 1}, {GPUs: 1, Share: 1000, Weight: 4}}, 1000)
		parts := f.Place(f.Shape(&cluster.JobSpec{GPUs: 1, GPUMilli: 320}), 1, &Query{})
		return parts[0].Node < cluster.NodeID(fmt.Sprintf("n%03d", waiting))
	}
	for waiting, want := range map[int]bool{1: false, 2: false, 60: true, 100: true} {
		if got := joins(waiting); got != want {
			t.Errorf("%d GPUs wait: the share joins one of them: %v, want %v", waiting, got, want)
		}
	}
}
