package replay

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// fragments measures how much of what is free is of no use to the jobs seen so far. A node is judged again only when it
// or the mix of jobs has changed.
type fragments struct {
	largest int32
	mix     mix
	tellAt  int64 // jobs seen when the mix is next taken anew
	kinds   []kind
	seen    int64
	nodes   map[cluster.NodeID]judged
}

// judged is a node as it was when it was last judged.
type judged struct {
	node *cluster.Node
	free float64 // thousandths that are of no use
}

// maxKinds bounds the requests that are told apart. Later ones are told apart by GPUs only.
const maxKinds = 256

func newFragments(largest int32) fragments {
	return fragments{largest: largest, mix: mix{at: map[shape]int{}}, nodes: map[cluster.NodeID]judged{}}
}

// note takes in a job's request: what it needs of one node.
func (f *fragments) note(j *trace.Job) {
	p := trace.Job{GPUs: j.GPUs, Milli: j.Milli, Types: j.Types, CPU: j.CPU, Mem: j.Mem}
	if p.GPUs > f.largest && f.largest > 0 {
		gpus := int64(p.GPUs)
		p.GPUs = f.largest
		p.CPU, p.Mem = each(p.CPU, gpus)*int64(p.GPUs), each(p.Mem, gpus)*int64(p.GPUs)
	}
	if _, known := f.mix.at[shapeOf(&p)]; !known && len(f.mix.kinds) >= maxKinds {
		p.CPU, p.Mem = 0, 0
	}
	f.mix.note(&p)
}

// measure returns the GPUs of the nodes that are there, and which part of them is free and of no use, in 0..1.
func (f *fragments) measure(s *cluster.State) (gpus int64, part float64) {
	if f.mix.seen >= f.tellAt {
		f.tellAt = f.mix.seen + f.mix.seen/4 + 1
		f.kinds, f.seen = slices.Clone(f.mix.kinds), f.mix.seen
		clear(f.nodes)
	}
	sum := 0.0
	s.EachNode(func(n *cluster.Node) bool {
		if n.State != cluster.NodeReady {
			return true
		}
		gpus += int64(len(n.GPUs))
		if f.seen == 0 {
			return true
		}
		k := f.nodes[n.ID]
		if k.node != n {
			k = judged{n, uselessOn(n, f.kinds, f.seen)}
			f.nodes[n.ID] = k
		}
		sum += k.free
		return true
	})
	if gpus == 0 {
		return 0, 0
	}
	return gpus, sum / float64(gpus*cluster.WholeGPU)
}
