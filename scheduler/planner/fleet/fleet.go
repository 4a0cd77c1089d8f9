package fleet

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Fleet is what is free on a cluster's nodes. One goroutine owns it.
type Fleet struct {
	score  cluster.ScoreName
	policy *cluster.Policy // only its levels are set

	byID   map[cluster.NodeID]*node
	nodes  []*node // by id, once settled: a node's place here is its position
	fresh  []*node // new, not yet among nodes
	pools  []*pool // by GPU type
	names  []string
	common []string // names without those of MIG instances
	doms   []level  // by level of the policy
	// unsettled: nodes came or went, or changed in what they are rather than in
	// what is free on them, so that positions, pools, and all that is in terms
	// of them must be made anew before the next answer.
	unsettled bool
	gen       uint32 // of the pools; what is cached in terms of older ones is void

	groups []*group // of nodes that are kept for the same
	masks  []mask   // for the last few queries, by which groups were open to them
	changes
	undo  []before // what Undo restores, newest last
	marks int
	as    Version
	last  uint64 // part of any Version

	shapes     map[uint64]*Shape // by hashSpec
	recent     *Shape            // the last of them that was asked for
	shapeCount int
	classes    map[classKey]*class
	admissions []string // what jobs ask of labels and taints; their place here is their number
	views      int      // made and not dropped
	mix        []MixItem
	asked      bool                // the mix has requests for GPUs, so there is a score
	values     *[units + 1]float64 // see holeValues; nil: not computed for this mix
	takers     *[units + 1]float64 // likewise
	churn      float64             // 0..1: part of the starts that follow an end
	scratch    scratch
}

// changes is which nodes changed lately, so that views can catch up.
type changes struct {
	from uint64  // sequence number of log[0]
	log  []int32 // positions
}

// now is the sequence number of the next change.
func (c *changes) now() uint64 { return c.from + uint64(len(c.log)) }

// Part is what a gang takes of one node.
type Part struct {
	Node  cluster.NodeID
	GPUs  int32
	Taken []int32 // which, as indexes of the node's GPUs, ascending

	of *node
}

// Mark is a moment to which Undo goes back.
type Mark struct {
	at, depth int
	as        Version
}

// Version tells apart what the fleet says: equal versions of one Fleet, equal
// answers to all questions, but for the score, which also knows the mix. The zero
// Version is that of nothing.
type Version struct {
	free  uint64 // of what is free; Undo goes back to it
	holds uint64 // of what nodes are kept for
}

// Version is that of what the fleet says now.
func (f *Fleet) Version() Version { return f.as }

// changed makes a new version of what is free.
func (f *Fleet) changed() {
	f.last++
	f.as.free = f.last
}

// New returns an empty Fleet that chooses by a named score and knows the
// policy's topology levels, widest first.
func New(score cluster.ScoreName, levels []cluster.Level) *Fleet {
	return &Fleet{
		score: score, policy: &cluster.Policy{Levels: levels},
		unsettled: true, byID: map[cluster.NodeID]*node{}, shapes: map[uint64]*Shape{}, classes: map[classKey]*class{},
	}
}

// Put tells what a node is now. Whatever Place and Give pretended of it is
// forgotten. Grew reports whether something may fit now that did not before;
// counted, whether the numbers of Sum other than what is free may have
// changed. Not to be called between Mark and Undo.
//
// It costs little if only what is free has changed, and less if that is as Place
// and Give have foreseen. A node that is new, or has other GPUs, labels or taints,
// makes the next answer cost as much as there are nodes.
func (f *Fleet) Put(n *cluster.Node) (grew, counted bool) {
	f.undo, f.marks = f.undo[:0], 0
	x := f.byID[n.ID]
	// A State of which nobody has a snapshot writes into the node that it has who
	// holds the GPUs, and makes a new one for all else.
	edited := x != nil && x.is == n
	switch {
	case x == nil:
		x = &node{is: n}
		f.byID[n.ID] = x
		f.fresh = append(f.fresh, x)
		f.unsettled = true
	case !edited && !f.unsettled:
		f.unsettled = !x.same(n)
	}
	if f.unsettled {
		f.changed()
		x.take(n)
		x.read(n)
		return true, true
	}
	changed, grew, whole := x.read(n)
	for i := 0; i < len(x.rooms) && !edited; i++ {
		counted = x.rooms[i].recount(x) || counted
	}
	switch {
	case changed && whole >= 0 && len(x.rooms) == 1 && len(x.rooms[0].holes) == 0: // as most: it is counted already
		x.rooms[0].set(x, whole, whole*cluster.WholeGPU)
		f.note(x)
	case changed:
		f.refresh(x)
	case counted:
		f.changed()
	}
	return grew, counted
}

// Drop forgets a node. Not to be called between Mark and Undo.
func (f *Fleet) Drop(id cluster.NodeID) {
	if f.byID[id] != nil {
		f.SetHolds(id, nil)
		delete(f.byID, id)
		f.undo, f.marks = f.undo[:0], 0
		f.unsettled = true
		f.changed()
	}
}

// Mark returns this moment for Undo.
func (f *Fleet) Mark() Mark {
	f.settle()
	f.marks++
	return Mark{at: len(f.undo), depth: f.marks, as: f.as}
}

// Undo goes back to a moment: what Place and Give did since is undone. Marks
// nest; an older one undoes the newer ones too.
func (f *Fleet) Undo(m Mark) {
	for len(f.undo) > m.at {
		b := &f.undo[len(f.undo)-1]
		x := f.nodes[b.pos]
		if b.gpu >= 0 {
			x.gpus[b.gpu].free = b.free
		} else {
			x.cpu, x.mem = b.cpu, b.mem
			f.refresh(x)
		}
		f.undo = f.undo[:len(f.undo)-1]
	}
	if f.marks >= m.depth { // else a node was put since
		f.as.free = m.as.free
	}
	f.marks = min(f.marks, max(m.depth-1, 0))
}

// before is a GPU as it was before a change, or a node's CPUs and memory.
type before struct {
	pos      int32
	gpu      int16 // -1: the node's CPUs and memory; noted before its GPUs
	free     int16
	cpu, mem int64
}

// save notes a node's CPUs and memory for Undo, before any of its GPUs.
func (f *Fleet) save(x *node) {
	if f.marks > 0 {
		f.undo = append(f.undo, before{pos: x.pos, gpu: -1, cpu: x.cpu, mem: x.mem})
	}
}

// setFree changes what is free of a GPU. Refresh must follow.
func (f *Fleet) setFree(x *node, gpu int, free int16) {
	if f.marks > 0 {
		f.undo = append(f.undo, before{pos: x.pos, gpu: int16(gpu), free: x.gpus[gpu].free})
	}
	x.gpus[gpu].free = free
}

// Give pretends that a job has let go of all that it holds. What it holds of
// nodes that are lost or take no jobs, and of sick GPUs, stays out of reach.
// To be called once for a job.
func (f *Fleet) Give(j *cluster.Job) {
	f.settle()
	for _, id := range j.NodeRanks {
		x := f.byID[id]
		if x == nil {
			continue
		}
		f.save(x)
		for i := range x.is.GPUs {
			held := heldBy(&x.is.GPUs[i], j.ID)
			if held == 0 {
				continue
			}
			x.cpu += j.Spec.CPUPerGPU
			x.mem += j.Spec.MemPerGPU
			if x.takes(i) {
				f.setFree(x, i, x.gpus[i].free+held)
			}
		}
		f.refresh(x)
	}
}

// settle brings positions, pools and all that is in terms of them up to date.
func (f *Fleet) settle() {
	if f.unsettled {
		f.makeAnew()
	}
}

// makeAnew is settle where something is to be done.
func (f *Fleet) makeAnew() {
	f.unsettled = false
	f.gen++
	f.mergeFresh()
	f.changes, f.masks = changes{}, f.masks[:0]
	f.makePools()
	f.makeLevels()
	f.makeGroups()
	for _, x := range f.nodes {
		for i := range x.rooms {
			x.rooms[i].recount(x)
		}
		f.refresh(x)
	}
	for _, c := range f.classes { // any order: each is emptied
		c.views = nil
	}
	f.views = 0
	f.scratch = scratch{}
}

// mergeFresh takes new nodes among the others, by id, and forgets dropped ones.
func (f *Fleet) mergeFresh() {
	slices.SortFunc(f.fresh, func(a, b *node) int { return cmp.Compare(a.is.ID, b.is.ID) })
	old, fresh := f.nodes, f.fresh
	all := make([]*node, 0, len(f.byID))
	for len(old) > 0 || len(fresh) > 0 {
		var x *node
		if len(fresh) == 0 || (len(old) > 0 && old[0].is.ID < fresh[0].is.ID) {
			x, old = old[0], old[1:]
		} else {
			x, fresh = fresh[0], fresh[1:]
		}
		if f.byID[x.is.ID] == x {
			all = append(all, x)
		}
	}
	f.nodes, f.fresh = all, nil
}

// size is the number of positions.
func (f *Fleet) size() int32 { return int32(len(f.nodes)) }

// refresh makes the pools true for a node whose free GPUs, CPUs or memory have
// changed, and notes the change.
func (f *Fleet) refresh(x *node) {
	for i := range x.rooms {
		x.rooms[i].refresh(x)
	}
	f.note(x)
}

// note notes a change of a node for the views.
func (f *Fleet) note(x *node) {
	if len(f.log) > 2*len(f.nodes)+minLog { // views that far behind are as well made anew
		drop := len(f.log) / 2
		f.from += uint64(drop)
		f.log = append(f.log[:0], f.log[drop:]...)
	}
	f.changed()
	x.changed = f.now()
	f.log = append(f.log, x.pos)
}

// minLog is how many changes are remembered whatever the number of nodes.
const minLog = 1024
