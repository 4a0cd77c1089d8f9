package fleet

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// spec is the part of a shape that functions of package cluster read.
func spec(sh *Shape) *cluster.JobSpec {
	return &cluster.JobSpec{Selector: sh.Selector, Tolerations: sh.Tolerations}
}

// slow is a second opinion: the same rules by plain loops over everything.
type slow struct {
	policy *cluster.Policy
	nodes  map[cluster.NodeID]*slowNode
	ids    []cluster.NodeID                                         // sorted
	roomy  bool                                                     // by the score consolidated
	scorer func(gpuType string) (sc scorer, cpuStep, memStep int64) // nil: by room
	byID   bool                                                     // of equal scores the first node by id, else the one with the fewest wholly free GPUs
	log    []saved                                                  // what Undo restores, newest last
}

// node is what is free on one node.
type slowNode struct {
	is       *cluster.Node
	free     []int32 // by GPU, thousandths
	cpu, mem int64
	holds    []Hold
}

// saved is a node as it was before a change.
type saved struct {
	n        *slowNode
	free     []int32
	cpu, mem int64
}

// New returns an empty Fleet that chooses by a named score and knows the
// policy's topology levels, widest first.
func newSlow(levels []cluster.Level) *slow {
	return &slow{policy: &cluster.Policy{Levels: levels}, nodes: map[cluster.NodeID]*slowNode{}}
}

// Put takes a node and reports whether more is free on it than before.
func (f *slow) Put(n *cluster.Node) (grew bool) {
	x := f.nodes[n.ID]
	if x == nil {
		x = &slowNode{free: make([]int32, len(n.GPUs))}
		f.nodes[n.ID] = x
		i, _ := slices.BinarySearch(f.ids, n.ID)
		f.ids = slices.Insert(f.ids, i, n.ID)
	}
	was := *x
	x.is, x.cpu, x.mem = n, n.CPUMilli-n.CPUUsed, n.MemBytes-n.MemUsed
	grew = x.cpu > was.cpu || x.mem > was.mem || len(n.GPUs) > len(was.free)
	x.free = make([]int32, len(n.GPUs))
	for i := range n.GPUs {
		x.free[i] = n.UsableMilli(i)
		grew = grew || (i < len(was.free) && x.free[i] > was.free[i])
	}
	return grew
}

// Drop forgets a node. Not to be called between Mark and Undo.
func (f *slow) Drop(id cluster.NodeID) {
	if i, ok := slices.BinarySearch(f.ids, id); ok {
		f.ids = slices.Delete(f.ids, i, i+1)
		delete(f.nodes, id)
	}
}

// SetHolds replaces what a node is kept for; none: anyone may use it. Nothing
// happens if the node is unknown.
func (f *slow) SetHolds(id cluster.NodeID, holds []Hold) {
	if x := f.nodes[id]; x != nil {
		x.holds = slices.Clone(holds)
	}
}

func (x *slowNode) open(q *Query) bool {
	if q.Any {
		return true
	}
	mine := false
	for i := range x.holds {
		mine = mine || (x.holds[i].Job != 0 && x.holds[i].Job == q.Job)
	}
	for i := range x.holds {
		if !x.holds[i].opens(q) && (x.holds[i].Job == 0 || !mine || x.holds[i].Priority > q.Priority) {
			return false
		}
	}
	return true
}

// Mark returns this moment for Undo.
func (f *slow) Mark() int { return len(f.log) }

// Undo goes back to a moment: what Place and Give did since is undone. Marks
// nest; an older one undoes the newer ones too.
func (f *slow) Undo(m int) {
	for len(f.log) > m {
		s := f.log[len(f.log)-1]
		s.n.free, s.n.cpu, s.n.mem = s.free, s.cpu, s.mem
		f.log = f.log[:len(f.log)-1]
	}
}

func (f *slow) save(x *slowNode) {
	f.log = append(f.log, saved{x, slices.Clone(x.free), x.cpu, x.mem})
}

// Give pretends that a job has let go of all that it holds. What it holds of
// nodes that are lost or take no jobs, and of sick GPUs, stays out of reach.
// To be called once for a job.
func (f *slow) Give(j *cluster.Job) {
	for _, id := range j.NodeRanks {
		x := f.nodes[id]
		if x == nil {
			continue
		}
		f.save(x)
		for i := range x.is.GPUs {
			g := &x.is.GPUs[i]
			held := int32(0)
			if g.Job == j.ID {
				held = cluster.WholeGPU
			}
			for k := range g.Shares {
				if g.Shares[k].Job == j.ID {
					held = g.Shares[k].Milli
				}
			}
			if held == 0 {
				continue
			}
			x.cpu += j.Spec.CPUPerGPU
			x.mem += j.Spec.MemPerGPU
			bare := *x.is
			bare.GPUs = []cluster.GPU{*g}
			bare.GPUs[0].Job, bare.GPUs[0].Shares = 0, nil
			if bare.Usable(0) {
				x.free[i] += held
			}
		}
	}
}

// Type counts the GPUs of a type, as they are now: what Place took and Give
// gave is counted.
func (f *slow) Type(gpuType string) Sum {
	var s Sum
	for _, id := range f.ids {
		x := f.nodes[id]
		for i := range x.is.GPUs {
			g := &x.is.GPUs[i]
			if g.Type != gpuType {
				continue
			}
			s.Total++
			if x.is.State != cluster.NodeReady || !g.Healthy {
				continue
			}
			s.Alive++
			if x.is.Drain == nil {
				s.Open++
			}
			s.Milli += int64(x.free[i])
			if x.free[i] == cluster.WholeGPU {
				s.Free++
			}
		}
	}
	return s
}

// Types returns the GPU types of the nodes, sorted. Not to be edited.
func (f *slow) Types() []string {
	var types []string
	for _, id := range f.ids {
		for i := range f.nodes[id].is.GPUs {
			if t := f.nodes[id].is.GPUs[i].Type; !slices.Contains(types, t) {
				types = append(types, t)
			}
		}
	}
	slices.Sort(types)
	return types
}
