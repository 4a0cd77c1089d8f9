package fleet

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// May reports whether a gang of a size could fit if its CPUs, memory, labels,
// taints and what is kept free were left out of account. If not, Place cannot
// succeed, whatever the query. It costs little, however large the cluster.
func (f *Fleet) May(sh *Shape, size int32) bool {
	f.settle()
	if len(sh.Types) == 0 {
		for _, p := range f.pools {
			if !p.named && p.may(sh, size) {
				return true
			}
		}
		return false
	}
	for _, t := range sh.Types {
		if p := f.pool(t); p != nil && p.may(sh, size) {
			return true
		}
	}
	return false
}

func (p *pool) may(sh *Shape, size int32) bool {
	switch {
	case sh.Shared():
		return sh.level != nowhere && (p.sum.Free > 0 || p.hole(int16(sh.Share)) < cluster.WholeGPU)
	case p.sum.Free < int64(size),
		sh.PerNode > 0 && p.atLeast(sh.PerNode)*int64(sh.PerNode) < int64(size):
		return false
	case !sh.Required:
		return true
	case sh.level == oneNode:
		return p.atLeast(size) > 0
	default:
		return sh.level >= 0 && p.free[sh.level].largest() >= size
	}
}

// Most returns the size of the largest gang that Place would accept now: at
// most sh.GPUs, a multiple of sh.PerNode, within one domain if the shape
// requires it.
func (f *Fleet) Most(sh *Shape, q *Query) int32 {
	f.settle()
	barred := f.barred(sh, q, false)
	most := int64(0)
	for _, p := range f.allowed(sh, q) {
		if !p.may(sh, max(sh.PerNode, 1)) {
			continue
		}
		v := f.view(sh.class, p)
		switch {
		case sh.Shared():
			if f.hole(v, sh, barred).pos >= 0 {
				return 1
			}
		case !sh.Required:
			most = max(most, f.offer(v, barred).total(sh))
		case sh.level == oneNode:
			most = max(most, int64(sh.gives(f.offer(v, barred).top())))
		default:
			for _, k := range f.capacity(v, sh, sh.level, barred) {
				most = max(most, int64(k))
			}
		}
	}
	return int32(min(most, int64(sh.GPUs)))
}

// allowed returns the pools that a query may use, preferred first. The result is scratch.
func (f *Fleet) allowed(sh *Shape, q *Query) []*pool {
	out := f.scratch.pools[:0]
	may := func(p *pool) bool { return p != nil && (q.Types == nil || slices.Contains(q.Types, p.gpuType)) }
	if len(sh.Types) == 0 {
		for _, p := range f.pools {
			if !p.named && may(p) {
				out = append(out, p)
			}
		}
	}
	for _, t := range sh.Types {
		if p := f.pool(t); may(p) {
			out = append(out, p)
		}
	}
	f.scratch.pools = out
	return out
}

// Place chooses GPUs for a gang of a size, and takes them. It returns nil, and
// takes nothing, if the gang does not fit. The result is valid until the next call.
//
// The rules, first what counts most:
//  1. Nodes that the query avoids are used only if there is no other way.
//  2. A list of GPU types is tried in order. Without one, of all types but MIG
//     instances the one on which the
//     gang needs the fewest nodes wins, then the one with the least room left
//     on them.
//  3. The gang keeps to one domain of its level if it can: the one with the
//     least room that suffices. A gang that only prefers this goes to as few
//     domains as can be, the roomiest first, of one domain of the next wider
//     level if one suffices; then to nodes without a domain.
//  4. There it takes as few nodes as can be, and among them the one with the
//     least room that suffices (see supply.pack); of equal nodes the one with
//     the lowest id.
//  5. On a node it takes GPUs of one island if it can (see room.wholes), or of
//     one NUMA node if it asks for that. A gang that asks for one island or NUMA
//     node, and fits into one, goes where that is so. A share goes where the least is free of a GPU that has it.
func (f *Fleet) Place(sh *Shape, size int32, q *Query) []Part {
	f.settle()
	if size < 1 || (sh.PerNode > 0 && size%sh.PerNode != 0) {
		return nil
	}
	if len(q.Avoid) > 0 {
		if parts := f.place(sh, size, q, true); parts != nil {
			return parts
		}
	}
	return f.place(sh, size, q, false)
}

func (f *Fleet) place(sh *Shape, size int32, q *Query, avoid bool) []Part {
	barred := f.barred(sh, q, avoid)
	if sh.Shared() {
		return f.placeShare(sh, q, barred)
	}
	var best *pool
	plans := &f.scratch.plans
	for _, p := range f.allowed(sh, q) {
		if !p.may(sh, size) {
			continue
		}
		plans[1] = plan{picks: plans[1].picks[:0]}
		if !f.choose(f.view(sh.class, p), sh, size, barred) {
			continue
		}
		if best == nil || plans[1].better(&plans[0], f.tiesByID()) {
			best = p
			plans[0], plans[1] = plans[1], plans[0]
		}
		if len(sh.Types) > 0 {
			break
		}
	}
	if best == nil {
		return nil
	}
	return f.take(best, sh, plans[0].picks)
}

// choose fills the second scratch plan with a way to place the gang on a view's
// nodes, and reports whether there is one.
func (f *Fleet) choose(v *view, sh *Shape, size int32, barred *set) bool {
	p := &f.scratch.plans[1]
	if sh.near != nil {
		near := f.view(sh.near, v.pool)
		if s := f.offer(near, barred); size <= sh.gives(s.top()) {
			f.chooseOne(near, s, sh, size, barred)
			return true
		}
	}
	if (sh.PerNode == 0 || sh.PerNode == size) && f.ranks(v.pool) == nil {
		if k, pos := v.tightest(size, barred); pos >= 0 {
			p.add(pos, size, k)
			return true
		}
	}
	s := f.offer(v, barred)
	top := s.top()
	switch {
	case s.total(sh) < int64(size):
		return false
	case size <= sh.gives(top):
		f.chooseOne(v, s, sh, size, barred)
		return true
	case sh.level == anywhere:
		s.pack(sh, size, p)
		return true
	case sh.level == oneNode:
		return false
	}
	if d := smallest(f.capacity(v, sh, sh.level, barred), size); d >= 0 {
		f.offerSome(v, f.doms[sh.level].members[d], barred).pack(sh, size, p)
		return true
	}
	if sh.Required {
		return false
	}
	f.spread(v, sh, size, barred, p)
	return true
}

// tightest returns the node with the least room that suffices for so many GPUs,
// the first of equal ones, and its room; -1: none has. It is what a supply would
// hand out first, without the making of one.
func (v *view) tightest(size int32, barred *set) (room, pos int32) {
	for k := size; k <= v.pool.width; k++ {
		if v.by[k].count == 0 {
			continue
		}
		if pos := v.by[k].next(0, nil, barred); pos >= 0 {
			return k, pos
		}
	}
	return 0, -1
}

// chooseOne chooses one node for a gang from a supply in which one has the room.
func (f *Fleet) chooseOne(v *view, s *supply, sh *Shape, size int32, barred *set) {
	p := &f.scratch.plans[1]
	r := f.ranks(v.pool)
	if r == nil {
		s.pack(sh, size, p)
		return
	}
	c := r.choose(v, sh, size, barred)
	p.add(c.pos, size, int32(v.room[c.pos]))
	p.score = c.score
}

// smallest returns the domain with the least room that suffices, the first by
// name of equal ones, or -1.
func smallest(caps []int32, size int32) int {
	best := -1
	for i, k := range caps {
		if k >= size && (best < 0 || k < caps[best]) {
			best = i
		}
	}
	return best
}

// spread places a gang on several domains of its level. There is room for it.
func (f *Fleet) spread(v *view, sh *Shape, size int32, barred *set, p *plan) {
	wide, at := sh.level-1, -1
	for ; wide >= 0; wide-- {
		if at = smallest(f.capacity(v, sh, wide, barred), size); at >= 0 {
			break
		}
	}
	lev := &f.doms[sh.level]
	order := f.scratch.order[:0]
	for d, k := range f.capacity(v, sh, sh.level, barred) {
		if k > 0 && (at < 0 || f.nodes[lev.members[d][0]].dom[wide] == int32(at)) {
			// Roomiest first, then by name.
			order = append(order, uint64(^uint32(k))<<32|uint64(d))
		}
	}
	f.scratch.order = order
	slices.Sort(order)
	for i, key := range order {
		k, d := int32(^uint32(key>>32)), int32(uint32(key))
		if k >= size {
			for _, other := range order[i+1:] {
				if less := int32(^uint32(other >> 32)); less >= size && less < k {
					k, d = less, int32(uint32(other))
				}
			}
		}
		k = min(k, size)
		f.offerSome(v, lev.members[d], barred).pack(sh, k, p)
		if size -= k; size == 0 {
			return
		}
	}
	rest := &f.scratch.rest
	*rest = (*rest)[:0]
	for pos := lev.none.next(0, nil, barred); pos >= 0; pos = lev.none.next(pos+1, nil, barred) {
		if at < 0 || f.nodes[pos].dom[wide] == int32(at) {
			*rest = append(*rest, pos)
		}
	}
	f.offerSome(v, *rest, barred).pack(sh, size, p)
}

// placeShare places a part of a GPU.
func (f *Fleet) placeShare(sh *Shape, q *Query, barred *set) []Part {
	var on *pool
	best := choice{pos: -1}
	for _, p := range f.allowed(sh, q) {
		if !p.may(sh, 1) {
			continue
		}
		v := f.view(sh.class, p)
		var c choice
		if r := f.ranks(p); r != nil {
			c = r.choose(v, sh, 1, barred)
		} else {
			c = f.hole(v, sh, barred)
		}
		if c.pos >= 0 && (on == nil || c.tighter(&best, f.tiesByID())) {
			on, best = p, c
		}
		if on != nil && len(sh.Types) > 0 {
			break
		}
	}
	if on == nil {
		return nil
	}
	return f.takeShare(on, sh, best.pos, best.hole)
}

// hole finds the GPU with the least free that has room for a share. Wholly free
// GPUs come last, and of these the one on the node with the least room.
func (f *Fleet) hole(v *view, sh *Shape, barred *set) choice {
	p := v.pool
	for h := p.hole(int16(sh.Share)); h < cluster.WholeGPU; h = p.hole(h + 1) {
		if pos := p.holes[h].next(0, &v.can, barred); pos >= 0 {
			return choice{pos: pos, hole: h, score: float64(h)}
		}
	}
	for k := range v.by {
		if k > 0 && v.by[k].count > 0 {
			if pos := v.by[k].next(0, nil, barred); pos >= 0 {
				return choice{pos: pos, hole: cluster.WholeGPU, score: float64(cluster.WholeGPU + k)}
			}
		}
	}
	return choice{pos: -1}
}
