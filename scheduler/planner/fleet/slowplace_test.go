package fleet

import (
	"cmp"
	"maps"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// room is what a gang could have of one node.
type slowRoom struct {
	x   *slowNode
	k   int32 // GPUs that the gang gets there
	fit int32 // that it could have
}

// whole is how many GPUs of a type are wholly free on a node.
func (x *slowNode) whole(gpuType string) int32 {
	k := int32(0)
	for i := range x.free {
		if x.free[i] == cluster.WholeGPU && x.is.GPUs[i].Type == gpuType {
			k++
		}
	}
	return k
}

// largest is how many GPUs of a type are wholly free in one part of a node.
func (x *slowNode) largest(gpuType, level string) (most int32) {
	for i := range x.free {
		k := int32(0)
		part, known := x.is.GPUs[i].Part(level)
		for j := range x.free {
			other, _ := x.is.GPUs[j].Part(level)
			if x.free[j] == cluster.WholeGPU && x.is.GPUs[j].Type == gpuType && x.free[i] == cluster.WholeGPU && (i == j || known && other == part) {
				k++
			}
		}
		most = max(most, k)
	}
	return most
}

// fit is for how many GPUs of the shape the node has CPUs and memory, at most k.
func (x *slowNode) fit(sh *Shape, k int32) int32 {
	fit := int64(k)
	if sh.CPU > 0 {
		fit = min(fit, x.cpu/sh.CPU)
	}
	if sh.Mem > 0 {
		fit = min(fit, x.mem/sh.Mem)
	}
	return int32(max(fit, 0))
}

// rooms returns the nodes that a query may use with their room, by id.
func (f *slow) rooms(sh *Shape, q *Query, gpuType string, avoid, within bool) []slowRoom {
	var out []slowRoom
	for _, id := range f.ids {
		x := f.nodes[id]
		k := x.whole(gpuType)
		if within {
			k = x.largest(gpuType, sh.Level)
		}
		k = x.fit(sh, k)
		if k < max(sh.PerNode, 1) || !x.open(q) || (avoid && slices.Contains(q.Avoid, id)) || x.is.Admits(spec(sh)) != "" {
			continue
		}
		if sh.Required && f.policy.Domain(x.is, sh.Level) == "" {
			continue
		}
		out = append(out, slowRoom{x, sh.gives(k), k})
	}
	return out
}

// Most returns the size of the largest gang that Place would accept now: at
// most sh.GPUs, a multiple of sh.PerNode, within one domain if the shape
// requires it.
func (f *slow) Most(sh *Shape, q *Query) int32 {
	most := int32(0)
	for _, t := range f.allowed(sh, q) {
		if sh.Shared() {
			if x, _, _ := f.shared(sh, q, t, false); x != nil {
				return 1
			}
			continue
		}
		rooms := f.rooms(sh, q, t, false, sh.Required && cluster.WithinNode(sh.Level))
		if !sh.Required {
			most = max(most, f.sum(sh, rooms, t))
			continue
		}
		for _, d := range f.split(rooms, sh.Level) {
			most = max(most, sum(d.rooms))
		}
	}
	return min(most, sh.GPUs)
}

// sum is how many GPUs a gang could have in rooms: by the score consolidated, if it names no level, those of whole nodes and of
// one node more.
func (f *slow) sum(sh *Shape, rooms []slowRoom, gpuType string) (n int32) {
	if !f.roomy || sh.PerNode > 0 || f.level(sh) != "" {
		return sum(rooms)
	}
	width, more := 0, int32(0)
	for _, x := range f.nodes {
		width = max(width, len(slices.DeleteFunc(slices.Clone(x.is.GPUs), func(g cluster.GPU) bool { return g.Type != gpuType })))
	}
	for _, r := range rooms {
		if r.k == int32(width) {
			n += r.k
		} else {
			more = max(more, r.k)
		}
	}
	return n + more
}

// level is the level that a shape names, if it counts: one that nobody has, and that is not required, does not.
func (f *slow) level(sh *Shape) string {
	if !sh.Required && !slices.ContainsFunc(f.policy.Levels, func(l cluster.Level) bool { return l.Name == sh.Level }) {
		return ""
	}
	return sh.Level
}

func sum(rooms []slowRoom) (n int32) {
	for _, r := range rooms {
		n += r.k
	}
	return n
}

type slowDomain struct {
	name  string
	rooms []slowRoom
	k     int32
}

// split groups nodes by their domain of a level, by name.
func (f *slow) split(rooms []slowRoom, level string) []slowDomain {
	var out []slowDomain
	for _, r := range rooms {
		name := f.policy.Domain(r.x.is, level)
		i, ok := slices.BinarySearchFunc(out, name, func(d slowDomain, want string) int { return cmp.Compare(d.name, want) })
		if !ok {
			out = slices.Insert(out, i, slowDomain{name: name})
		}
		out[i].rooms = append(out[i].rooms, r)
		out[i].k += r.k
	}
	return out
}

// Place chooses GPUs for a gang of a size, and takes them.
func (f *slow) Place(sh *Shape, size int32, q *Query) []Part {
	if size < 1 || (sh.PerNode > 0 && size%sh.PerNode != 0) {
		return nil
	}
	if parts := f.place(sh, size, q, true); parts != nil {
		return parts
	}
	return f.place(sh, size, q, false)
}

func (f *slow) place(sh *Shape, size int32, q *Query, avoid bool) []Part {
	var best []slowRoom
	var bestType string
	var one *slowNode
	var gpu int32
	var least, score, bestScore float64
	for _, t := range f.allowed(sh, q) {
		if best != nil || one != nil {
			if len(sh.Types) > 0 {
				break
			}
		}
		if sh.Shared() {
			if x, g, free := f.shared(sh, q, t, avoid); x != nil && (one == nil || free < least || (free == least && f.scorer != nil && f.first(x, one, x.whole(t)-one.whole(bestType)))) {
				one, gpu, least, bestType = x, g, free, t
			}
			continue
		}
		rooms := f.rooms(sh, q, t, avoid, sh.Required && cluster.WithinNode(sh.Level))
		if cluster.WithinNode(sh.Level) { // as a wish, too
			near := f.rooms(sh, q, t, avoid, true)
			if slices.ContainsFunc(near, func(r slowRoom) bool { return r.k >= size }) {
				rooms = near
			}
		}
		parts := f.choose(sh, size, rooms, t)
		score = 0
		if len(parts) == 1 && f.scorer != nil {
			parts, score = f.cheapest(sh, size, rooms, t)
		}
		if parts != nil && (best == nil || f.tighter(parts, best, score-bestScore)) {
			best, bestType, bestScore = parts, t, score
		}
	}
	if one != nil {
		return []Part{f.take(one, sh, []int32{gpu})}
	}
	var out []Part
	for _, r := range best {
		out = append(out, f.take(r.x, sh, r.x.pick(bestType, sh.Level, r.k)))
	}
	return out
}

// allowed returns the GPU types that a query may use, preferred first.
func (f *slow) allowed(sh *Shape, q *Query) []string {
	types := sh.Types
	if len(types) == 0 {
		types = slices.DeleteFunc(f.Types(), func(t string) bool { _, _, instance := cluster.InstanceOf(t); return instance })
	}
	if q.Types == nil {
		return types
	}
	return slices.DeleteFunc(slices.Clone(types), func(t string) bool { return !slices.Contains(q.Types, t) })
}

// choose picks nodes among rooms.
func (f *slow) choose(sh *Shape, size int32, rooms []slowRoom, gpuType string) []slowRoom {
	if f.sum(sh, rooms, gpuType) < size {
		return nil
	}
	level := f.level(sh)
	if level == "" || slices.ContainsFunc(rooms, func(r slowRoom) bool { return r.k >= size }) {
		return f.pack(sh, rooms, size, false)
	}
	if d := f.within(rooms, level, size); d != nil || sh.Required {
		if d == nil {
			return nil
		}
		return f.pack(sh, d.rooms, size, false)
	}
	names := []string{}
	for _, l := range f.policy.Levels {
		if l.Name == level {
			break
		}
		names = append(names, l.Name)
	}
	for _, wide := range slices.Backward(names) {
		if d := f.within(rooms, wide, size); d != nil {
			rooms = d.rooms
			break
		}
	}
	var out []slowRoom
	domains := f.split(rooms, level)
	for size > 0 {
		best := -1
		for i, d := range domains {
			switch {
			case d.name == "":
			case best < 0, d.k >= size && (domains[best].k < size || d.k < domains[best].k),
				d.k < size && domains[best].k < size && d.k > domains[best].k:
				best = i
			}
		}
		best = max(best, 0)
		k := min(size, domains[best].k)
		out = append(out, f.pack(sh, domains[best].rooms, k, len(out) > 0)...)
		size -= k
		domains = slices.Delete(domains, best, best+1)
	}
	return out
}

// within returns the smallest domain that suffices, or nil.
func (f *slow) within(rooms []slowRoom, level string, size int32) *slowDomain {
	var best *slowDomain
	domains := f.split(rooms, level)
	for i := range domains {
		if d := &domains[i]; d.name != "" && d.k >= size && (best == nil || d.k < best.k) {
			best = d
		}
	}
	return best
}

// pack takes the roomiest nodes until one suffices for what is left, and then
// the one with the least room that does, or the roomiest if it is so scored and
// more of the gang lies elsewhere. With a shape, the least room first.
func (f *slow) pack(sh *Shape, rooms []slowRoom, size int32, more bool) []slowRoom {
	rooms = slices.Clone(rooms)
	slices.SortStableFunc(rooms, func(a, b slowRoom) int { return cmp.Compare(a.fit, b.fit) })
	var out []slowRoom
	for size > 0 {
		want := min(size, rooms[len(rooms)-1].fit)
		if sh.PerNode > 0 {
			want = sh.PerNode
		}
		least := want
		if f.roomy && sh.PerNode == 0 && (more || len(out) > 0) {
			least = rooms[len(rooms)-1].fit
		}
		i := slices.IndexFunc(rooms, func(r slowRoom) bool { return r.fit >= least })
		out = append(out, slowRoom{rooms[i].x, want, rooms[i].fit})
		rooms = slices.Delete(rooms, i, i+1)
		size -= want
	}
	return out
}

// shared finds a GPU for a share: the fullest one that has it; a whole one on
// the node with the least room.
func (f *slow) shared(sh *Shape, q *Query, gpuType string, avoid bool) (best *slowNode, gpu int32, least float64) {
	for _, id := range f.ids {
		x := f.nodes[id]
		if !x.open(q) || x.fit(sh, 1) < 1 || (avoid && slices.Contains(q.Avoid, id)) || x.is.Admits(spec(sh)) != "" {
			continue
		}
		if sh.Required && f.policy.Domain(x.is, sh.Level) == "" {
			continue
		}
		for i, free := range x.free {
			if x.is.GPUs[i].Type != gpuType || free < sh.Share {
				continue
			}
			score := float64(free)
			if free == cluster.WholeGPU {
				score += float64(x.fit(sh, x.whole(gpuType)))
			}
			if f.scorer != nil {
				var hole int16
				if score, hole = f.rise(x, sh, 1, gpuType, f.glut(gpuType)); int32(hole) != free {
					continue
				}
			}
			if best == nil || score < least || (f.scorer != nil && score == least && f.first(x, best, x.whole(gpuType)-best.whole(gpuType))) {
				best, gpu, least = x, int32(i), score
			}
		}
	}
	return best, gpu, least
}

// pick names k wholly free GPUs of a node, of one island, or NUMA node, if it can be.
func (x *slowNode) pick(gpuType, level string, k int32) []int32 {
	free := map[int32][]int32{} // by island or NUMA node
	if level != cluster.LevelNUMA {
		level = cluster.LevelIsland
	}
	for i := range x.free {
		if x.free[i] == cluster.WholeGPU && x.is.GPUs[i].Type == gpuType {
			part, known := x.is.GPUs[i].Part(level)
			if !known {
				part = -1 - int32(i)
			}
			free[part] = append(free[part], int32(i))
		}
	}
	var out []int32
	for k > 0 {
		best, found := int32(0), false
		for _, island := range slices.Sorted(maps.Keys(free)) {
			n, b := int32(len(free[island])), int32(len(free[best]))
			if !found || (n >= k && (b < k || n < b)) || (n < k && b < k && n > b) {
				best, found = island, true
			}
		}
		n := min(k, int32(len(free[best])))
		out = append(out, free[best][:n]...)
		delete(free, best)
		k -= n
	}
	slices.Sort(out)
	return out
}

// take gives GPUs of a node to a gang.
func (f *slow) take(x *slowNode, sh *Shape, gpus []int32) Part {
	f.save(x)
	x.free = slices.Clone(x.free)
	for _, g := range gpus {
		x.free[g] -= sh.Share
		x.cpu -= sh.CPU
		x.mem -= sh.Mem
	}
	return Part{Node: x.is.ID, GPUs: int32(len(gpus)), Taken: gpus}
}
