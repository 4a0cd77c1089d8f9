package fleet

import (
	"cmp"
	"slices"
	"strings"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Hold keeps a node for a job, or for the jobs of a queue and of those below
// it. Without either nobody may have it. A gang that will be gone by At may
// use the node in any case, and one of higher priority one that is kept for a
// job. Of several holds all must let a gang use the node, but jobs of one
// priority for which a node is kept share it.
type Hold struct {
	Job      cluster.JobID
	Priority int32 // of the job
	Queue    string
	At       cluster.Time // 0: kept from now on
}

// Query is who asks.
type Query struct {
	Job      cluster.JobID
	Priority int32
	Last     bool // after all jobs for which nodes are kept, whatever its priority
	Queue    string
	End      cluster.Time     // when the gang will be gone; 0: unknown, so never
	Avoid    []cluster.NodeID // used only if there is no other way
	Types    []string         // only these GPU types, of those that the shape allows; nil: all of them
	Any      bool             // as if no node were kept for anyone
}

// opens reports whether a hold lets a query use the node.
func (h *Hold) opens(q *Query) bool {
	switch {
	case h.Job != 0 && (h.Job == q.Job || h.Priority < q.Priority && !q.Last), q.End != 0 && q.End <= h.At:
		return true
	case h.Queue == "" || !strings.HasPrefix(q.Queue, h.Queue):
		return false
	default:
		return len(q.Queue) == len(h.Queue) || q.Queue[len(h.Queue)] == '/'
	}
}

// compareHolds orders holds; the order has no meaning but that it is one.
func compareHolds(a, b Hold) int {
	return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Priority, b.Priority), strings.Compare(a.Queue, b.Queue), cmp.Compare(a.At, b.At))
}

// group is the nodes that are kept for the same.
type group struct {
	holds []Hold // sorted
	nodes set
	count int // of nodes, settled or not
}

// open reports whether all holds of the group let a query use its nodes. Jobs
// of one priority for which the same nodes are kept do not keep them from each other.
func (g *group) open(q *Query) bool {
	mine := slices.ContainsFunc(g.holds, func(h Hold) bool { return h.Job != 0 && h.Job == q.Job })
	for i := range g.holds {
		if h := &g.holds[i]; !h.opens(q) && (h.Job == 0 || !mine || h.Priority > q.Priority) {
			return false
		}
	}
	return true
}

// SetHolds replaces what a node is kept for; none: anyone may use it. Nothing
// happens if the node is unknown.
func (f *Fleet) SetHolds(id cluster.NodeID, holds []Hold) {
	x := f.byID[id]
	if x == nil || (len(holds) == 0 && x.held == nil) {
		return
	}
	var next *group
	if len(holds) > 0 {
		holds = slices.Clone(holds)
		slices.SortFunc(holds, compareHolds)
		if next = f.group(holds); next == x.held {
			return
		}
		next.count++
		if !f.unsettled {
			next.nodes.add(x.pos)
		}
	}
	if was := x.held; was != nil {
		if !f.unsettled {
			was.nodes.remove(x.pos)
		}
		if was.count--; was.count == 0 {
			f.groups = slices.DeleteFunc(f.groups, func(g *group) bool { return g == was })
		}
	}
	x.held = next
	f.last++
	f.as.holds = f.last
	f.masks = f.masks[:0]
}

// group returns the group with these holds, and makes it if there is none.
func (f *Fleet) group(holds []Hold) *group {
	for i := len(f.groups) - 1; i >= 0; i-- { // the newest is the likeliest
		if slices.Equal(f.groups[i].holds, holds) {
			return f.groups[i]
		}
	}
	g := &group{holds: holds, nodes: newSet(f.size())}
	f.groups = append(f.groups, g)
	return g
}

// makeGroups puts the nodes under their groups anew.
func (f *Fleet) makeGroups() {
	for _, g := range f.groups {
		g.nodes = newSet(f.size())
	}
	for _, x := range f.nodes {
		if x.held != nil {
			x.held.nodes.add(x.pos)
		}
	}
}

// mask is the nodes that are kept from queries to which the same groups are open.
type mask struct {
	shut  []uint64 // a bit for each group
	nodes set
}

// maxMasks bounds how many masks are kept, each some bits for each node.
const maxMasks = 16

// shut returns the nodes that a query may not use since they are kept for others; nil: none.
func (f *Fleet) shut(q *Query) *set {
	if q.Any || len(f.groups) == 0 {
		return nil
	}
	key := f.scratch.key[:0]
	some := false
	for i, g := range f.groups {
		if i&63 == 0 {
			key = append(key, 0)
		}
		if !g.open(q) {
			key[i>>6] |= 1 << (uint(i) & 63)
			some = true
		}
	}
	f.scratch.key = key
	if !some {
		return nil
	}
	for i := range f.masks {
		if slices.Equal(f.masks[i].shut, key) {
			return &f.masks[i].nodes
		}
	}
	if len(f.masks) == maxMasks {
		f.masks = slices.Delete(f.masks, 0, maxMasks/2)
	}
	m := mask{shut: slices.Clone(key), nodes: newSet(f.size())}
	for i, g := range f.groups {
		if key[i>>6]>>(uint(i)&63)&1 != 0 {
			m.nodes.union(&g.nodes)
		}
	}
	f.masks = append(f.masks, m)
	return &f.masks[len(f.masks)-1].nodes
}

// barred returns the nodes that a query may not use; nil: none. With avoid,
// those that it would rather not use are among them.
func (f *Fleet) barred(sh *Shape, q *Query, avoid bool) *set {
	shut := f.shut(q)
	outside := sh.Required && sh.level >= 0 && f.doms[sh.level].none.count > 0
	if !outside && !avoid {
		return shut
	}
	b := &f.scratch.barred
	if len(b.words) == 0 {
		*b = newSet(f.size())
	}
	b.reset()
	if shut != nil {
		b.union(shut)
	}
	if outside {
		b.union(&f.doms[sh.level].none)
	}
	if avoid {
		for _, id := range q.Avoid {
			if x := f.byID[id]; x != nil {
				b.add(x.pos)
			}
		}
	}
	return b
}
