package fleet

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// EachIn calls fn for the nodes of a domain of one of the policy's levels, by
// id, until fn returns false. Its name is as Obstacle.Domain says it. A level or
// a domain that is not known has no nodes.
func (f *Fleet) EachIn(levelName, domain string, fn func(id cluster.NodeID) bool) {
	f.settle()
	l := f.levelOf(levelName, true)
	if l < 0 {
		return
	}
	at, ok := slices.BinarySearch(f.doms[l].names, domain)
	if !ok {
		return
	}
	for _, pos := range f.doms[l].members[at] {
		if !fn(f.nodes[pos].is.ID) {
			return
		}
	}
}

// EachSome calls fn for nodes that have GPUs of a type, by id: for all of them
// if there are at most so many, else for as many, evenly spread.
func (f *Fleet) EachSome(gpuType string, most int, fn func(id cluster.NodeID)) {
	f.settle()
	p := f.pool(gpuType)
	if p == nil {
		return
	}
	n := len(p.nodes)
	for k := range min(n, most) {
		fn(f.nodes[p.nodes[k*n/min(n, most)]].is.ID)
	}
}

// NodesOf is how many nodes have GPUs of a type.
func (f *Fleet) NodesOf(gpuType string) int {
	f.settle()
	if p := f.pool(gpuType); p != nil {
		return len(p.nodes)
	}
	return 0
}
