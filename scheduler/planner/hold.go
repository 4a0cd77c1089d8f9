package planner

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// keepFree takes nodes out of the pool for a gang that has waited long enough:
// as few as would hold it when empty, those with the most free GPUs first. The
// jobs behind it get the rest of the cluster.
//
// The gang cannot starve: what is free on these nodes only grows, since no job
// behind it gets any of it, and a node that others left emptier may only take
// the place of a fuller one. It returns false if the live nodes could not hold
// the gang even if all jobs ended; then nothing is kept.
func (p *pool) keepFree(spec *cluster.JobSpec) bool {
	for _, name := range p.allowed(spec) {
		t := p.byType[name]
		if t == nil || t.alive < spec.GPUs {
			continue
		}
		if keep := t.emptiest(spec); keep != nil {
			for _, l := range keep {
				t.drop(l.node)
			}
			return true
		}
	}
	return false
}

// emptiest returns the live nodes with the most free GPUs that together could
// hold the gang, or nil.
func (t *typePool) emptiest(spec *cluster.JobSpec) []liveNode {
	free := make(map[cluster.NodeID]int, len(t.nodes))
	for _, r := range t.nodes {
		free[r.node.ID] = len(r.gpus)
	}
	nodes := slices.Clone(t.live) // by id, which decides among equals
	slices.SortStableFunc(nodes, func(a, b liveNode) int { return cmp.Compare(free[b.node.ID], free[a.node.ID]) })
	left := spec.GPUs
	for i, l := range nodes {
		if left -= cluster.Room(l.node, spec, l.gpus); left <= 0 {
			return nodes[:i+1]
		}
	}
	return nil
}

// drop takes a node's free GPUs of this type out of the pool.
func (t *typePool) drop(n *cluster.Node) {
	t.nodes = slices.DeleteFunc(t.nodes, func(r *nodeRoom) bool {
		if r.node != n {
			return false
		}
		t.free -= int32(len(r.gpus))
		return true
	})
}
