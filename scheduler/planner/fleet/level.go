package fleet

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// level is one level of the topology: its domains, by name.
type level struct {
	names   []string
	members [][]int32 // positions of each domain's nodes
	none    set       // nodes that are in no domain of the level
}

// Levels that a shape may ask for beside those of the policy.
const (
	anywhere = -1 // no wish
	oneNode  = -2 // all on one node, and within one part of it if the class says so
	nowhere  = -3 // within one domain of a level that the policy does not have
)

// levelOf returns the index of the level that a gang asks for.
func (f *Fleet) levelOf(name string, required bool) int {
	for i := range f.policy.Levels {
		if name != "" && f.policy.Levels[i].Name == name {
			return i
		}
	}
	switch {
	case !required:
		return anywhere
	case cluster.WithinNode(name):
		return oneNode
	default:
		return nowhere
	}
}

// makeLevels finds the domains anew.
func (f *Fleet) makeLevels() {
	f.doms = make([]level, len(f.policy.Levels))
	for _, x := range f.nodes {
		x.dom = make([]int32, len(f.doms))
	}
	for l := range f.doms {
		d := &f.doms[l]
		d.none = newSet(f.size())
		for _, x := range f.nodes {
			if len(x.paths) == l {
				x.paths = append(x.paths, f.policy.Domain(x.is, f.policy.Levels[l].Name))
			}
			if path := x.paths[l]; path != "" && (len(d.names) == 0 || d.names[len(d.names)-1] != path) {
				d.names = append(d.names, path)
			}
		}
		slices.Sort(d.names)
		d.names = slices.Compact(d.names)
		d.members = make([][]int32, len(d.names))
		at := 0
		for _, x := range f.nodes {
			ok := at < len(d.names) && d.names[at] == x.paths[l] // neighbours are often of one domain
			if !ok {
				at, ok = slices.BinarySearch(d.names, x.paths[l])
			}
			if !ok {
				x.dom[l] = -1
				d.none.add(x.pos)
				continue
			}
			x.dom[l] = int32(at)
			d.members[at] = append(d.members[at], x.pos)
		}
		for _, p := range f.pools {
			p.free = append(p.free, most{by: make([]int32, max(len(d.names), 1))})
		}
	}
}
