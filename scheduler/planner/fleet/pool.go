package fleet

import (
	"math/bits"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Sum counts the GPUs of one type.
type Sum struct {
	Total int64 // on nodes that the Fleet knows
	Alive int64 // of these: healthy, and on a live node
	Open  int64 // of these: on a node that takes jobs
	Free  int64 // whole GPUs that could be given away now
	Milli int64 // thousandths that could be given away now, whole GPUs included
}

// pool is all GPUs of one type.
type pool struct {
	gpuType string
	named   bool // MIG instances: only for gangs that name the type
	index   int32
	width   int32   // the most GPUs of the type that one node has
	nodes   []int32 // positions of the nodes that have such GPUs

	positions int32 // of all nodes
	sum       Sum
	with      []int32 // nodes on which at least so many GPUs are wholly free
	free      []most  // wholly free GPUs of each domain, by level

	// holes are the nodes by what is free of GPUs that are free in part, in
	// thousandths; filled has a bit for each that is not empty.
	holes  []set
	filled [cluster.WholeGPU/64 + 1]uint64
	values []int16 // scratch

	ranks *ranks // made when a score asks
}

// most follows a number for each domain, and knows the largest.
type most struct {
	by    []int32
	max   int32
	stale bool // max may be too large
}

func (m *most) add(domain, by int32) {
	was := m.by[domain]
	m.by[domain] = was + by
	if was+by >= m.max {
		m.max = was + by
	} else if was == m.max {
		m.stale = true
	}
}

func (m *most) largest() int32 {
	if m.stale {
		m.max, m.stale = slices.Max(m.by), false
	}
	return m.max
}

// makePools makes the pools anew from the nodes, with nothing free yet.
func (f *Fleet) makePools() {
	f.pools, f.names = f.pools[:0:0], f.names[:0:0]
	for _, x := range f.nodes {
		for i := range x.is.GPUs {
			if t := x.is.GPUs[i].Type; i == 0 || x.is.GPUs[i-1].Type != t {
				if at, ok := slices.BinarySearch(f.names, t); !ok {
					f.names = slices.Insert(f.names, at, t)
				}
			}
		}
	}
	f.common = f.common[:0:0]
	for i, t := range f.names {
		_, _, named := cluster.InstanceOf(t)
		f.pools = append(f.pools, &pool{gpuType: t, named: named, index: int32(i), positions: f.size()})
		if !named {
			f.common = append(f.common, t)
		}
	}
	for i, x := range f.nodes {
		x.pos = int32(i)
		x.makeRooms(f)
	}
	for _, p := range f.pools {
		p.with = make([]int32, p.width+1)
		p.with[0] = int32(len(p.nodes))
	}
}

// pool returns the pool of a type, or nil.
func (f *Fleet) pool(gpuType string) *pool {
	i, ok := slices.BinarySearch(f.names, gpuType)
	if !ok {
		return nil
	}
	return f.pools[i]
}

// size is how many GPUs of the type the node has.
func (r *room) size(x *node) int {
	if r.gpus == nil {
		return len(x.gpus)
	}
	return len(r.gpus)
}

// gpu is the index of the kth GPU of the type among all of the node's.
func (r *room) gpu(k int) int {
	if r.gpus == nil {
		return k
	}
	return int(r.gpus[k])
}

// recount counts anew the node's GPUs of the type by the facts of the last Put,
// and reports whether a count has changed.
func (r *room) recount(x *node) (changed bool) {
	was := *r
	r.total, r.alive, r.open = 0, 0, 0
	ready := x.is.State == cluster.NodeReady
	for k := range r.size(x) {
		g := &x.is.GPUs[r.gpu(k)]
		r.total++
		if !ready || !g.Healthy {
			continue
		}
		r.alive++
		if x.is.Drain == nil {
			r.open++
		}
	}
	s := &r.pool.sum
	s.Total += int64(r.total - was.total)
	s.Alive += int64(r.alive - was.alive)
	s.Open += int64(r.open - was.open)
	return r.total != was.total || r.alive != was.alive || r.open != was.open
}

// refresh counts anew what is free of the type on the node, and makes the pool true.
func (r *room) refresh(x *node) {
	p := r.pool
	values := p.values[:0]
	whole, milli := int32(0), int32(0)
	for k := range r.size(x) {
		free := x.gpus[r.gpu(k)].free
		milli += int32(free)
		if free == cluster.WholeGPU {
			whole++
		} else if free > 0 {
			values = append(values, free)
		}
	}
	r.set(x, whole, milli)
	p.values = values
	if len(values) > 0 || len(r.holes) > 0 {
		slices.Sort(values)
		values = slices.Compact(values)
		p.moveHoles(x.pos, r.holes, values)
		r.holes = append(r.holes[:0], values...)
	}
}

// set makes the pool true for how many GPUs are wholly free, and how much in all.
func (r *room) set(x *node, whole, milli int32) {
	p := r.pool
	p.sum.Milli += int64(milli - r.milli)
	r.milli = milli
	by := whole - r.whole
	if by == 0 {
		return
	}
	p.sum.Free += int64(by)
	for k := r.whole + 1; k <= whole; k++ {
		p.with[k]++
	}
	for k := r.whole; k > whole; k-- {
		p.with[k]--
	}
	for l, d := range x.dom {
		if d >= 0 {
			p.free[l].add(d, by)
		}
	}
	r.whole = whole
}

// moveHoles puts a node under what is now free of its shared GPUs. Both lists
// are sorted and have each value once.
func (p *pool) moveHoles(pos int32, old, now []int16) {
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || (len(old) > 0 && old[0] < now[0]):
			h := &p.holes[old[0]]
			if h.remove(pos); h.count == 0 {
				p.filled[old[0]>>6] &^= 1 << (uint(old[0]) & 63)
			}
			old = old[1:]
		case len(old) == 0 || now[0] < old[0]:
			if p.holes == nil {
				p.holes = make([]set, cluster.WholeGPU)
			}
			h := &p.holes[now[0]]
			if h.words == nil {
				*h = newSet(p.positions)
			}
			h.add(pos)
			p.filled[now[0]>>6] |= 1 << (uint(now[0]) & 63)
			now = now[1:]
		default:
			old, now = old[1:], now[1:]
		}
	}
}

// hole returns the smallest part of a GPU, at least of a size, that some node
// has free; or WholeGPU if there is none.
func (p *pool) hole(least int16) int16 {
	part := p.filled[least>>6] & (^uint64(0) << (uint(least) & 63))
	for w := least >> 6; ; part = p.filled[w] {
		if part != 0 {
			return w<<6 | int16(bits.TrailingZeros64(part))
		}
		if w++; int(w) == len(p.filled) {
			return cluster.WholeGPU
		}
	}
}

// atLeast returns on how many nodes at least k GPUs are wholly free.
func (p *pool) atLeast(k int32) int64 {
	if k > p.width {
		return 0
	}
	return int64(p.with[k])
}

// Type counts the GPUs of a type, as they are now: what Place took and Give
// gave is counted.
func (f *Fleet) Type(gpuType string) Sum {
	f.settle()
	if p := f.pool(gpuType); p != nil {
		return p.sum
	}
	return Sum{}
}

// NodesWith returns on how many nodes at least so many GPUs of a type are wholly free, as they are now.
func (f *Fleet) NodesWith(gpuType string, gpus int32) int32 {
	f.settle()
	if p := f.pool(gpuType); p != nil {
		return int32(p.atLeast(gpus)) //nolint:gosec // at most the nodes
	}
	return 0
}

// Types returns the GPU types of the nodes, sorted. Not to be edited.
func (f *Fleet) Types() []string {
	f.settle()
	return f.names
}

// Common returns the GPU types that a gang may get which names none, sorted: all
// but MIG instances. Not to be edited.
func (f *Fleet) Common() []string {
	f.settle()
	return f.common
}

// RoomOn is what EachNode tells of one node: nothing if it has no GPUs of the type.
func (f *Fleet) RoomOn(id cluster.NodeID, gpuType string) (free, alive int32) {
	f.settle()
	x, p := f.byID[id], f.pool(gpuType)
	if x == nil || p == nil {
		return 0, 0
	}
	if r := x.room(p); r != nil {
		return r.whole, r.alive
	}
	return 0, 0
}

// EachNode calls fn for the nodes that have GPUs of a type, by id, as they were
// put last, with how many
// of them are wholly free and how many are healthy on a live node, until fn
// returns false.
func (f *Fleet) EachNode(gpuType string, fn func(n *cluster.Node, free, alive int32) bool) {
	f.settle()
	p := f.pool(gpuType)
	if p == nil {
		return
	}
	for _, pos := range p.nodes {
		x := f.nodes[pos]
		if r := x.room(p); !fn(x.is, r.whole, r.alive) {
			return
		}
	}
}
