package fleet

import (
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Fleet is what is free on a cluster's nodes. One goroutine owns it.
type Fleet struct {
	score  cluster.ScoreName
	policy *cluster.Policy // only its levels are set
	nodes  map[cluster.NodeID]*node
	ids    []cluster.NodeID // sorted
	log    []saved          // what Undo restores, newest last

	shapes     map[uint64]*Shape // by hashSpec
	shapeCount int
}

// node is what is free on one node.
type node struct {
	is       *cluster.Node
	free     []int32 // by GPU, thousandths
	cpu, mem int64
	holds    []Hold
}

// saved is a node as it was before a change.
type saved struct {
	n        *node
	free     []int32
	cpu, mem int64
}

// Hold keeps a node for a job, or for the jobs of a queue and of those below
// it. Without either nobody may have it. A gang that will be gone by At may
// use the node in any case.
type Hold struct {
	Job   cluster.JobID
	Queue string
	At    cluster.Time // 0: kept from now on
}

// Query is who asks.
type Query struct {
	Job   cluster.JobID
	Queue string
	End   cluster.Time     // when the gang will be gone; 0: unknown, so never
	Avoid []cluster.NodeID // used only if there is no other way
	Types []string         // only these GPU types, of those that the shape allows; nil: all of them
	Any   bool             // as if no node were kept for anyone
}

// Part is what a gang takes of one node.
type Part struct {
	Node  cluster.NodeID
	GPUs  int32
	Taken []int32 // which, as indexes of the node's GPUs, ascending
}

// Mark is a moment to which Undo goes back.
type Mark struct{ at int }

// New returns an empty Fleet that chooses by a named score and knows the
// policy's topology levels, widest first.
func New(score cluster.ScoreName, levels []cluster.Level) *Fleet {
	return &Fleet{
		score: score, policy: &cluster.Policy{Levels: levels},
		nodes: map[cluster.NodeID]*node{}, shapes: map[uint64]*Shape{},
	}
}

// Put tells what a node is now. Whatever Place and Give pretended of it is
// forgotten. Grew reports whether something may fit now that did not before;
// counted, whether the numbers of Sum other than what is free may have changed.
// Not to be called between Mark and Undo.
func (f *Fleet) Put(n *cluster.Node) (grew, counted bool) {
	x := f.nodes[n.ID]
	grew, counted = true, true
	if x == nil {
		x = &node{}
		f.nodes[n.ID] = x
		i, _ := slices.BinarySearch(f.ids, n.ID)
		f.ids = slices.Insert(f.ids, i, n.ID)
	}
	x.is, x.cpu, x.mem = n, n.CPUMilli-n.CPUUsed, n.MemBytes-n.MemUsed
	x.free = make([]int32, len(n.GPUs))
	for i := range n.GPUs {
		x.free[i] = n.UsableMilli(i)
	}
	return grew, counted
}

// Drop forgets a node. Not to be called between Mark and Undo.
func (f *Fleet) Drop(id cluster.NodeID) {
	if i, ok := slices.BinarySearch(f.ids, id); ok {
		f.ids = slices.Delete(f.ids, i, i+1)
		delete(f.nodes, id)
	}
}

// SetHolds replaces what a node is kept for; none: anyone may use it. Nothing
// happens if the node is unknown.
func (f *Fleet) SetHolds(id cluster.NodeID, holds []Hold) {
	if x := f.nodes[id]; x != nil {
		x.holds = slices.Clone(holds)
	}
}

// opens reports whether a hold lets a query use the node.
func (h *Hold) opens(q *Query) bool {
	switch {
	case h.Job != 0 && h.Job == q.Job, q.End != 0 && q.End <= h.At:
		return true
	case h.Queue == "" || !strings.HasPrefix(q.Queue, h.Queue):
		return false
	default:
		return len(q.Queue) == len(h.Queue) || q.Queue[len(h.Queue)] == '/'
	}
}

func (x *node) open(q *Query) bool {
	if q.Any {
		return true
	}
	for i := range x.holds {
		if !x.holds[i].opens(q) {
			return false
		}
	}
	return true
}

// Mark returns this moment for Undo.
func (f *Fleet) Mark() Mark { return Mark{len(f.log)} }

// Undo goes back to a moment: what Place and Give did since is undone. Marks
// nest; an older one undoes the newer ones too.
func (f *Fleet) Undo(m Mark) {
	for len(f.log) > m.at {
		s := f.log[len(f.log)-1]
		s.n.free, s.n.cpu, s.n.mem = s.free, s.cpu, s.mem
		f.log = f.log[:len(f.log)-1]
	}
}

func (f *Fleet) save(x *node) {
	f.log = append(f.log, saved{x, slices.Clone(x.free), x.cpu, x.mem})
}

// Give pretends that a job has let go of all that it holds. What it holds of
// nodes that are lost or take no jobs, and of sick GPUs, stays out of reach.
// To be called once for a job.
func (f *Fleet) Give(j *cluster.Job) {
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

// Sum counts the GPUs of one type.
type Sum struct {
	Total int64 // on nodes that the Fleet knows
	Alive int64 // of these: healthy, and on a live node
	Open  int64 // of these: on a node that takes jobs
	Held  int64 // of Alive: a job holds it or a share of it
	Free  int64 // whole GPUs that could be given away now
	Milli int64 // thousandths that could be given away now, whole GPUs included
}

// Type counts the GPUs of a type, as they are now: what Place took and Give
// gave is counted.
func (f *Fleet) Type(gpuType string) Sum {
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
			if g.Held() {
				s.Held++
			}
		}
	}
	return s
}

// Types returns the GPU types of the nodes, sorted. Not to be edited.
func (f *Fleet) Types() []string {
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

// EachNode calls fn for the nodes that have GPUs of a type, by id, with how many
// of them are free and how many are healthy on a live node, until fn returns false.
func (f *Fleet) EachNode(gpuType string, fn func(id cluster.NodeID, free, alive int32) bool) {
	for _, id := range f.ids {
		x := f.nodes[id]
		free, alive, has := int32(0), int32(0), false
		for i := range x.is.GPUs {
			if g := &x.is.GPUs[i]; g.Type == gpuType {
				has = true
				if x.free[i] == cluster.WholeGPU {
					free++
				}
				if x.is.State == cluster.NodeReady && g.Healthy {
					alive++
				}
			}
		}
		if has && !fn(id, free, alive) {
			return
		}
	}
}
