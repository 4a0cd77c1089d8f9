package fleet

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// room is what a gang could have of one node.
type room struct {
	x *node
	k int32
}

// whole is how many GPUs of a type are wholly free on a node.
func (x *node) whole(gpuType string) int32 {
	k := int32(0)
	for i := range x.free {
		if x.free[i] == cluster.WholeGPU && x.is.GPUs[i].Type == gpuType {
			k++
		}
	}
	return k
}

// fit is for how many GPUs of the shape the node has CPUs and memory, at most k.
func (x *node) fit(sh *Shape, k int32) int32 {
	fit := int64(k)
	if sh.CPU > 0 {
		fit = min(fit, x.cpu/sh.CPU)
	}
	if sh.Mem > 0 {
		fit = min(fit, x.mem/sh.Mem)
	}
	return int32(max(fit, 0)) //nolint:gosec // at most k
}

// rooms returns the nodes that a query may use with their room, by id.
func (f *Fleet) rooms(sh *Shape, q *Query, gpuType string, avoid bool) []room {
	var out []room
	for _, id := range f.ids {
		x := f.nodes[id]
		k := x.fit(sh, x.whole(gpuType))
		if k < max(sh.PerNode, 1) || !x.open(q) || (avoid && slices.Contains(q.Avoid, id)) || x.is.Admits(&sh.spec) != "" {
			continue
		}
		if sh.Required && f.policy.Domain(x.is, sh.Level) == "" {
			continue
		}
		if sh.PerNode > 0 {
			k = sh.PerNode
		}
		out = append(out, room{x, k})
	}
	return out
}

// May reports whether a gang of a size could fit if its CPUs, memory, labels,
// taints and what is kept free are left out of account. If not, Place cannot
// succeed, whatever the query.
func (f *Fleet) May(sh *Shape, size int32) bool {
	return true
}

// Most returns the size of the largest gang that Place would accept now: at
// most sh.GPUs, a multiple of sh.PerNode, within one domain if the shape
// requires it.
func (f *Fleet) Most(sh *Shape, q *Query) int32 {
	most := int32(0)
	for _, t := range f.allowed(sh, q) {
		if sh.Shared() {
			if x, _ := f.shared(sh, q, t, false); x != nil {
				return 1
			}
			continue
		}
		rooms := f.rooms(sh, q, t, false)
		if !sh.Required {
			most = max(most, sum(rooms))
			continue
		}
		for _, d := range f.split(rooms, sh.Level) {
			most = max(most, sum(d.rooms))
		}
	}
	return min(most, sh.GPUs)
}

func sum(rooms []room) (n int32) {
	for _, r := range rooms {
		n += r.k
	}
	return n
}

type domain struct {
	name  string
	rooms []room
	k     int32
}

// split groups nodes by their domain of a level, by name.
func (f *Fleet) split(rooms []room, level string) []domain {
	var out []domain
	for _, r := range rooms {
		name := f.policy.Domain(r.x.is, level)
		i, ok := slices.BinarySearchFunc(out, name, func(d domain, want string) int { return cmp.Compare(d.name, want) })
		if !ok {
			out = slices.Insert(out, i, domain{name: name})
		}
		out[i].rooms = append(out[i].rooms, r)
		out[i].k += r.k
	}
	return out
}

// Place chooses GPUs for a gang of a size, and takes them. It returns nil, and
// takes nothing, if the gang does not fit.
func (f *Fleet) Place(sh *Shape, size int32, q *Query) []Part {
	if size < 1 || (sh.PerNode > 0 && size%sh.PerNode != 0) {
		return nil
	}
	for _, avoid := range []bool{true, false} {
		if avoid && len(q.Avoid) == 0 {
			continue
		}
		var best []room
		var bestType string
		for _, t := range f.allowed(sh, q) {
			if sh.Shared() {
				if x, g := f.shared(sh, q, t, avoid); x != nil {
					return []Part{f.take(x, sh, []int32{g})}
				}
				continue
			}
			parts := f.choose(sh, size, f.rooms(sh, q, t, avoid))
			if parts != nil && (best == nil || tighter(parts, best, bestType, t, sh)) {
				best, bestType = parts, t
			}
			if best != nil && len(sh.Types) > 0 {
				break
			}
		}
		if best == nil {
			continue
		}
		var out []Part
		for _, r := range best {
			out = append(out, f.take(r.x, sh, r.x.pick(bestType, r.k)))
		}
		return out
	}
	return nil
}

// allowed returns the GPU types that a query may use, preferred first.
func (f *Fleet) allowed(sh *Shape, q *Query) []string {
	types := sh.Types
	if len(types) == 0 {
		types = f.Types()
	}
	if q.Types == nil {
		return types
	}
	return slices.DeleteFunc(slices.Clone(types), func(t string) bool { return !slices.Contains(q.Types, t) })
}

// TypeOf is the GPU type of what Place took.
func (f *Fleet) TypeOf(parts []Part) string {
	return f.nodes[parts[0].Node].is.GPUs[parts[0].Taken[0]].Type
}

// tighter compares two ways to place one gang: fewer nodes, then less left over.
func tighter(a, b []room, bt, at string, sh *Shape) bool {
	left := func(rooms []room, t string) (n int32) {
		for _, r := range rooms {
			n += r.x.fit(sh, r.x.whole(t)) - r.k
		}
		return n
	}
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(left(a, at), left(b, bt))) < 0
}

// choose picks nodes among rooms.
func (f *Fleet) choose(sh *Shape, size int32, rooms []room) []room {
	if sum(rooms) < size {
		return nil
	}
	if sh.Level == "" || (sh.Level == "node" && !sh.Required) {
		return pack(rooms, size)
	}
	if one := f.within(rooms, sh.Level, size); one != nil || sh.Required {
		return one
	}
	for i := len(f.policy.Levels) - 1; i >= 0; i-- {
		// Wider levels than the wish: stay within the smallest of these that suffices.
		_ = i
	}
	var out []room
	domains := f.split(rooms, sh.Level)
	for size > 0 && len(domains) > 0 {
		best := -1
		for i, d := range domains {
			if d.name != "" && d.k >= size && (best < 0 || domains[best].k < size || d.k < domains[best].k) {
				best = i
			} else if d.name != "" && d.k < size && (best < 0 || (domains[best].k < size && d.k > domains[best].k)) {
				best = i
			}
		}
		if best < 0 {
			best = 0
		}
		k := min(size, domains[best].k)
		out = append(out, pack(domains[best].rooms, k)...)
		size -= k
		domains = slices.Delete(domains, best, best+1)
	}
	return out
}

// within packs a gang into the smallest domain that suffices, or returns nil.
func (f *Fleet) within(rooms []room, level string, size int32) []room {
	var best *domain
	domains := f.split(rooms, level)
	for i := range domains {
		if d := &domains[i]; d.name != "" && d.k >= size && (best == nil || d.k < best.k) {
			best = d
		}
	}
	if best == nil {
		return nil
	}
	return pack(best.rooms, size)
}

// pack takes the roomiest nodes until one suffices for what is left, and then
// the one with the least room that does.
func pack(rooms []room, size int32) []room {
	rooms = slices.Clone(rooms)
	slices.SortStableFunc(rooms, func(a, b room) int { return cmp.Compare(a.k, b.k) })
	var out []room
	for size > 0 {
		i, _ := slices.BinarySearchFunc(rooms, min(size, rooms[len(rooms)-1].k), func(r room, want int32) int { return cmp.Compare(r.k, want) })
		k := min(rooms[i].k, size)
		out = append(out, room{rooms[i].x, k})
		rooms = slices.Delete(rooms, i, i+1)
		size -= k
	}
	return out
}

// shared finds a GPU for a share: the fullest one that has it, by node id.
func (f *Fleet) shared(sh *Shape, q *Query, gpuType string, avoid bool) (*node, int32) {
	var best *node
	var gpu, least int32
	for _, id := range f.ids {
		x := f.nodes[id]
		if !x.open(q) || x.fit(sh, 1) < 1 || (avoid && slices.Contains(q.Avoid, id)) || x.is.Admits(&sh.spec) != "" {
			continue
		}
		for i, free := range x.free {
			if x.is.GPUs[i].Type == gpuType && free >= sh.Share && (best == nil || free < least) {
				best, gpu, least = x, int32(i), free //nolint:gosec // at most cluster.MaxNodeGPUs
			}
		}
	}
	return best, gpu
}

// pick names k wholly free GPUs of a node, of one island if it can be.
func (x *node) pick(gpuType string, k int32) []int32 {
	count := map[int32]int32{}
	var all []int32
	for i := range x.free {
		if x.free[i] == cluster.WholeGPU && x.is.GPUs[i].Type == gpuType {
			all = append(all, int32(i)) //nolint:gosec // at most cluster.MaxNodeGPUs
			count[x.is.GPUs[i].Island]++
		}
	}
	// The fullest island that suffices; if none does, the roomiest ones.
	slices.SortStableFunc(all, func(a, b int32) int {
		ia, ib := x.is.GPUs[a].Island, x.is.GPUs[b].Island
		ca, cb := count[ia], count[ib]
		switch {
		case (ca >= k) != (cb >= k):
			return cmp.Compare(min(cb, k), min(ca, k))
		case ca >= k:
			return cmp.Or(cmp.Compare(ca, cb), cmp.Compare(ia, ib))
		default:
			return cmp.Or(cmp.Compare(cb, ca), cmp.Compare(ia, ib))
		}
	})
	all = all[:k:k]
	slices.Sort(all)
	return all
}

// take gives GPUs of a node to a gang.
func (f *Fleet) take(x *node, sh *Shape, gpus []int32) Part {
	f.save(x)
	x.free = slices.Clone(x.free)
	for _, g := range gpus {
		x.free[g] -= sh.Share
		x.cpu -= sh.CPU
		x.mem -= sh.Mem
	}
	return Part{Node: x.is.ID, GPUs: int32(len(gpus)), Taken: gpus} //nolint:gosec // at most cluster.MaxNodeGPUs
}

// Workers names the GPUs of what Place took, before its nodes change: one
// worker for each GPU, or one for each node. Ranks run through the nodes in
// the order of the parts, and through each node's GPUs.
func (f *Fleet) Workers(parts []Part, launch cluster.LaunchMode) []cluster.Placement {
	total := 0
	for i := range parts {
		total += len(parts[i].Taken)
	}
	uuids := make([]string, 0, total)
	workers := make([]cluster.Placement, 0, total)
	for i := range parts {
		n := f.nodes[parts[i].Node].is
		from := len(uuids)
		for _, g := range parts[i].Taken {
			uuids = append(uuids, n.GPUs[g].UUID)
		}
		for step := 1; from < len(uuids); from += step {
			if launch == cluster.LaunchPerNode {
				step = len(uuids) - from
			}
			workers = append(workers, cluster.Placement{Rank: cluster.Rank(len(workers)), Node: n.ID, GPUs: uuids[from : from+step : from+step]})
		}
	}
	return workers
}
