package planner

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// share is a number of GPUs on one node.
type share struct {
	room *nodeRoom
	k    int32
}

// place finds GPUs for the whole gang and takes them, or takes nothing and
// says why. A preference list is tried in order; without one, the type on
// which the gang needs the fewest nodes wins, then the one that leaves the
// least room behind.
func (p *pool) place(spec *cluster.JobSpec) ([]cluster.Placement, string) {
	var best []share
	var bestType *typePool
	for _, name := range p.allowed(spec) {
		t := p.byType[name]
		if t == nil || t.free < spec.GPUs {
			continue
		}
		shares := t.choose(spec)
		if shares == nil {
			continue
		}
		if best == nil || tighter(shares, best) {
			best, bestType = shares, t
		}
		if len(spec.GPUTypes) > 0 {
			break
		}
	}
	if best == nil {
		return nil, p.why(spec)
	}
	return bestType.assign(best, spec), ""
}

// tighter compares two ways to place one gang: fewer nodes, then less left over.
func tighter(a, b []share) bool {
	left := func(shares []share) (n int32) {
		for _, s := range shares {
			n += int32(len(s.room.gpus)) - s.k
		}
		return n
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(left(a), left(b))) < 0
}

// choose picks nodes for a gang: consolidated on as few nodes as can be, and
// best fit (the node with the least room that suffices) for what is left, so
// that whole nodes stay whole for large gangs. Nil if the gang does not fit.
func (t *typePool) choose(spec *cluster.JobSpec) []share {
	if spec.GPUsPerNode > 0 {
		return t.chooseShaped(spec)
	}
	rooms := t.byRoom(spec)
	var shares []share
	left := spec.GPUs
	for left > 0 && len(rooms) > 0 {
		// The first node with room for all that is left is the best fit, since
		// rooms are sorted by room; if none has it, fill the first of the roomiest.
		i := firstWith(rooms, min(left, rooms[len(rooms)-1].k))
		k := min(rooms[i].k, left)
		shares = append(shares, share{rooms[i].room, k})
		rooms = slices.Delete(rooms, i, i+1)
		left -= k
	}
	if left > 0 {
		return nil
	}
	return shares
}

// firstWith returns the index of the first node, in order of room, with room for k GPUs.
func firstWith(rooms []share, k int32) int {
	i, _ := slices.BinarySearchFunc(rooms, k, func(r share, want int32) int { return cmp.Compare(r.k, want) })
	return i
}

// chooseShaped picks nodes that each give exactly spec.GPUsPerNode GPUs.
func (t *typePool) chooseShaped(spec *cluster.JobSpec) []share {
	rooms := t.byRoom(spec)
	want := int(spec.GPUs / spec.GPUsPerNode)
	i := firstWith(rooms, spec.GPUsPerNode)
	if len(rooms)-i < want {
		return nil
	}
	shares := slices.Clone(rooms[i : i+want])
	for j := range shares {
		shares[j].k = spec.GPUsPerNode
	}
	return shares
}

// byRoom returns the nodes with room for the job, least room first, then by id.
func (t *typePool) byRoom(spec *cluster.JobSpec) []share {
	rooms := make([]share, 0, len(t.nodes))
	for _, r := range t.nodes {
		if k := r.fit(spec); k > 0 {
			rooms = append(rooms, share{r, k})
		}
	}
	slices.SortStableFunc(rooms, func(a, b share) int { return cmp.Compare(a.k, b.k) })
	return rooms
}

// assign takes the chosen GPUs and numbers the workers: ranks run through the
// nodes in order, and through each node's GPUs.
func (t *typePool) assign(shares []share, spec *cluster.JobSpec) []cluster.Placement {
	workers := make([]cluster.Placement, 0, spec.GPUs)
	for _, s := range shares {
		gpus := t.take(s.room, s.k, spec)
		if spec.Launch == cluster.LaunchPerNode {
			workers = append(workers, cluster.Placement{Rank: cluster.Rank(len(workers)), Node: s.room.node.ID, GPUs: gpus})
			continue
		}
		for i := range gpus {
			workers = append(workers, cluster.Placement{Rank: cluster.Rank(len(workers)), Node: s.room.node.ID, GPUs: gpus[i : i+1 : i+1]})
		}
	}
	return workers
}
