package fleet

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// take gives the picked nodes' GPUs of a type to a gang.
func (f *Fleet) take(p *pool, sh *Shape, picks []pick) []Part {
	parts, all := f.scratch.parts[:0], f.scratch.taken[:0]
	total := int32(0)
	for _, k := range picks {
		total += k.k
	}
	all = slices.Grow(all, int(total)) // so that it stays where it is
	for _, k := range picks {
		x := f.nodes[k.pos]
		r := x.room(p)
		from := len(all)
		all = r.wholes(x, sh.within, k.k, all)
		gpus := all[from:len(all):len(all)]
		f.save(x)
		for _, g := range gpus {
			f.setFree(x, int(g), 0)
		}
		x.cpu -= sh.CPU * int64(k.k)
		x.mem -= sh.Mem * int64(k.k)
		r.set(x, r.whole-k.k, r.milli-k.k*cluster.WholeGPU)
		f.note(x)
		parts = append(parts, Part{Node: x.is.ID, GPUs: k.k, Taken: gpus, of: x})
	}
	f.scratch.parts, f.scratch.taken = parts, all
	return parts
}

// takeShare gives a share of a GPU to a gang: of the node's first one of which
// so much is free.
func (f *Fleet) takeShare(p *pool, sh *Shape, pos int32, free int16) []Part {
	x := f.nodes[pos]
	r := x.room(p)
	k := 0
	for x.gpus[r.gpu(k)].free != free {
		k++
	}
	f.save(x)
	f.setFree(x, r.gpu(k), free-int16(sh.Share))
	x.cpu -= sh.CPU
	x.mem -= sh.Mem
	f.refresh(x)
	taken := append(f.scratch.taken[:0], int32(r.gpu(k)))
	f.scratch.taken, f.scratch.parts = taken, append(f.scratch.parts[:0], Part{Node: x.is.ID, GPUs: 1, Taken: taken, of: x})
	return f.scratch.parts
}

// wholes appends the indexes of n wholly free GPUs of the type, ascending: of
// the part of the node (its islands, if nothing is asked for) with the fewest
// free that has so many; if none has, of the parts with the most free, one after
// the other. Of equal parts the lower number.
func (r *room) wholes(x *node, by part, n int32, out []int32) []int32 {
	from := len(out)
	if !r.apart && by != byNUMA || n == r.whole {
		for k := 0; int32(len(out)-from) < n; k++ {
			if i := r.gpu(k); x.gpus[i].free == cluster.WholeGPU {
				out = append(out, int32(i))
			}
		}
		return out
	}
	var tallies [maxParts]tally
	parts := r.tally(x, by, tallies[:0])
	for left := n; left > 0; {
		best := -1
		for i := range parts {
			if c := parts[i].count; c > 0 && (best < 0 || nearer(c, parts[best].count, left) || (c == parts[best].count && parts[i].id < parts[best].id)) {
				best = i
			}
		}
		parts[best].want = min(left, parts[best].count)
		left -= parts[best].want
		parts[best].count = 0
	}
	r.eachWhole(x, func(i int32) {
		if t := &parts[find(parts, x.part(i, by))]; t.want > 0 {
			t.want--
			out = append(out, i)
		}
	})
	return out
}

// part says by what the GPUs of a node are told apart.
type part uint8

// Parts of a node.
const (
	byNone   part = 0
	byIsland part = 1 // NVLink islands
	byNUMA   part = 2 // NUMA nodes; where that is not known, each GPU is alone
)

// partOf is what a level within a node tells GPUs apart by.
func partOf(level string) part {
	switch level {
	case cluster.LevelIsland:
		return byIsland
	case cluster.LevelNUMA:
		return byNUMA
	default:
		return byNone
	}
}

// part is the number of the part in which GPU i lies.
func (x *node) part(i int32, by part) int32 {
	switch g := &x.gpus[i]; {
	case by != byNUMA:
		return g.island
	case g.numa == cluster.NUMAUnknown:
		return -1 - i
	default:
		return int32(g.numa)
	}
}

// maxParts is how many parts of a node are told apart without allocating.
const maxParts = 16

// tally counts the wholly free GPUs of one part of a node.
type tally struct{ id, count, want int32 }

// tally appends the parts of a node with their wholly free GPUs of the type.
func (r *room) tally(x *node, by part, out []tally) []tally {
	r.eachWhole(x, func(i int32) {
		id := x.part(i, by)
		k := find(out, id)
		if k == len(out) {
			out = append(out, tally{id: id})
		}
		out[k].count++
	})
	return out
}

// find returns the place of a part, or the length of the list.
func find(parts []tally, id int32) int {
	i := 0
	for i < len(parts) && parts[i].id != id {
		i++
	}
	return i
}

// largest is the most wholly free GPUs of the type that lie in one part of the node.
func (r *room) largest(x *node, by part) int32 {
	if !r.apart && (by == byIsland || x.gpus[r.gpu(0)].numa != cluster.NUMAUnknown) {
		return r.whole
	}
	var tallies [maxParts]tally
	most := int32(0)
	for _, t := range r.tally(x, by, tallies[:0]) {
		most = max(most, t.count)
	}
	return most
}

// nearer reports whether an island with a free GPUs is a better choice for n
// than one with b.
func nearer(a, b, n int32) bool {
	if a >= n && b >= n {
		return a < b
	}
	return a > b
}

// eachWhole calls fn with the index of each wholly free GPU of the type, ascending.
func (r *room) eachWhole(x *node, fn func(i int32)) {
	for k := range r.size(x) {
		if i := r.gpu(k); x.gpus[i].free == cluster.WholeGPU {
			fn(int32(i))
		}
	}
}

// TypeOf is the GPU type of what Place took.
func (f *Fleet) TypeOf(parts []Part) string {
	return parts[0].of.is.GPUs[parts[0].Taken[0]].Type
}

// Workers appends who has the GPUs that Place took: one worker for each GPU, or
// one for each node. Ranks run through the nodes in the order of the parts, and
// through each node's GPUs. The nodes must have the GPUs that they had then.
func (f *Fleet) Workers(to []cluster.Placement, parts []Part, launch cluster.LaunchMode) []cluster.Placement {
	rank := cluster.Rank(0)
	for i := range parts {
		p := &parts[i]
		step := 1
		if launch == cluster.LaunchPerNode {
			step = len(p.Taken)
		}
		for taken := p.Taken; len(taken) > 0; taken = taken[step:] {
			to = append(to, cluster.Placement{Rank: rank, Node: p.Node, GPUs: p.of.names(taken[:step])})
			rank++
		}
	}
	return to
}

// names are the UUIDs of GPUs in ascending order. Those of neighbours cost no
// memory. The result is never to be edited.
func (x *node) names(gpus []int32) []string {
	first, n := gpus[0], int32(len(gpus))
	if last := first + n; gpus[n-1] == last-1 {
		return x.uuids[first:last:last]
	}
	uuids := make([]string, n)
	for i, g := range gpus {
		uuids[i] = x.uuids[g]
	}
	return uuids
}
