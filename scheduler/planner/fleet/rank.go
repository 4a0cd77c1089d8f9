package fleet

import (
	"math"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// ranks chooses nodes of a pool by a score. Nodes that a score sees alike are
// one kind, so that a choice costs as much as there are kinds, not nodes. It
// catches up with the pool as views do.
type ranks struct {
	fleet  *Fleet
	pool   *pool
	scorer scorer
	seen   uint64
	of     []int32 // kind by position, -1: none
	kinds  []kind
	index  map[string]int32 // by key
	by     [][]int32        // kinds that have nodes, by how many GPUs are wholly free
	tables map[rankKey]table
	// Free CPUs and memory are seen in steps, so that there are not as many
	// kinds as nodes; 1: exactly.
	cpuStep, memStep int64
	byID             bool // of equal scores the node first by id, see Fleet.tiesByID

	key   []byte
	after sight
	loss  glut
}

// kind is a state in which nodes are.
type kind struct {
	sight sight
	whole int32
	place int32   // in ranks.by[whole], -1: it has no nodes
	cost  float64 // of the state
	nodes []int32 // positions, descending
}

// rankKey is what requests with the same scores have in common.
type rankKey struct {
	k, share int32
	cpu, mem int64
}

// table remembers the ways of one request, by kind; nil: not computed.
type table [][]way

// way is how a request could be placed on a node.
type way struct {
	hole int16   // what is free of the GPU that a share takes
	rise float64 // of the node's cost
}

// Bounds of what is remembered; at either all is computed anew.
const (
	maxTables = 1024
	minKinds  = 8192
)

// ranks returns the pool's ranks, caught up; nil: there is no score.
func (f *Fleet) ranks(p *pool) *ranks {
	r := p.ranks
	if r == nil {
		s := f.scorer(p)
		if s == nil {
			return nil
		}
		r = &ranks{fleet: f, pool: p, scorer: s, cpuStep: 1, memStep: 1, byID: f.tiesByID()}
		if o, ok := s.(*outlook); ok {
			r.cpuStep, r.memStep = o.cpuStep, o.memStep
		}
		p.ranks = r
	}
	f.followRanks(r)
	return r
}

func (f *Fleet) followRanks(r *ranks) {
	now := f.now()
	if r.seen == now && r.of != nil {
		return
	}
	if r.of == nil || r.seen < f.from || now-r.seen > uint64(len(r.pool.nodes)) || len(r.kinds) > minKinds+4*len(r.pool.nodes) {
		r.of = make([]int32, f.size())
		for i := range r.of {
			r.of[i] = -1
		}
		r.kinds, r.index = nil, map[string]int32{}
		r.by, r.tables = make([][]int32, r.pool.width+1), map[rankKey]table{}
		for _, pos := range r.pool.nodes {
			r.read(f.nodes[pos])
		}
		r.seen = now
		return
	}
	for ; r.seen < now; r.seen++ {
		if x := f.nodes[f.log[r.seen-f.from]]; x.changed == r.seen {
			r.read(x)
		}
	}
}

// read puts a node under its kind.
func (r *ranks) read(x *node) {
	room := x.room(r.pool)
	if room == nil {
		return
	}
	next := r.kindOf(x, room)
	was := r.of[x.pos]
	if was == next {
		return
	}
	if was >= 0 {
		k := &r.kinds[was]
		at, _ := slices.BinarySearchFunc(k.nodes, x.pos, func(a, b int32) int { return int(b - a) })
		if k.nodes = slices.Delete(k.nodes, at, at+1); len(k.nodes) == 0 {
			list := r.by[k.whole]
			last := list[len(list)-1]
			list[k.place], r.kinds[last].place = last, k.place
			r.by[k.whole], k.place = list[:len(list)-1], -1
		}
	}
	r.of[x.pos] = next
	if next < 0 {
		return
	}
	k := &r.kinds[next]
	at, _ := slices.BinarySearchFunc(k.nodes, x.pos, func(a, b int32) int { return int(b - a) })
	if k.nodes = slices.Insert(k.nodes, at, x.pos); len(k.nodes) == 1 {
		k.place = int32(len(r.by[k.whole]))
		r.by[k.whole] = append(r.by[k.whole], next)
	}
}

// kindOf returns the kind of a node as it is, or -1 if nothing is free on it.
func (r *ranks) kindOf(x *node, room *room) int32 {
	if room.milli == 0 {
		return -1
	}
	s := &r.after
	s.see(x, room, r.cpuStep, r.memStep)
	key := r.key[:0]
	for _, v := range [2]int64{s.cpu, s.mem} {
		for shift := 0; shift < 64; shift += 8 {
			key = append(key, byte(v>>shift))
		}
	}
	for _, free := range s.free {
		key = append(key, byte(free), byte(free>>8))
	}
	r.key = key
	if at, ok := r.index[string(key)]; ok {
		return at
	}
	at := int32(len(r.kinds))
	r.index[string(key)] = at
	r.kinds = append(r.kinds, kind{
		sight: sight{free: slices.Clone(s.free), cpu: s.cpu, mem: s.mem}, whole: room.whole, place: -1, cost: r.scorer.cost(s),
	})
	return at
}

// see fills a sight with what a score sees of a node.
func (s *sight) see(x *node, room *room, cpuStep, memStep int64) {
	s.free = s.free[:0]
	for k := range room.size(x) {
		s.free = append(s.free, x.gpus[room.gpu(k)].free)
	}
	slices.Sort(s.free)
	// The middle of the step stands for all of it.
	s.cpu = max(x.cpu, 0)/cpuStep*cpuStep + cpuStep/2
	s.mem = max(x.mem, 0)/memStep*memStep + memStep/2
}

// choice is a node for a gang that goes to one.
type choice struct {
	pos   int32 // -1: none
	score float64
	whole int32 // GPUs wholly free there
	hole  int16 // for a share: what is free of the GPU that it takes
}

// better compares two choices: the lower score, then the node with fewer
// wholly free GPUs (not byID), then the one first by id.
func (c *choice) better(d *choice, byID bool) bool {
	switch {
	case d.pos < 0 || c.score != d.score:
		return d.pos < 0 || c.score < d.score
	case c.whole != d.whole && !byID:
		return c.whole < d.whole
	default:
		return c.pos < d.pos
	}
}

// tighter compares two choices on different GPU types: the lower score, then the
// node with fewer wholly free GPUs, or byID the first by id.
func (c *choice) tighter(d *choice, byID bool) bool {
	switch {
	case c.score != d.score:
		return c.score < d.score
	case byID:
		return c.pos < d.pos
	default:
		return c.whole < d.whole
	}
}

// choose returns the best node for k GPUs of a view, or for a share of one.
func (r *ranks) choose(v *view, sh *Shape, k int32, barred *set) choice {
	t := r.table(rankKey{k: k, share: sh.Share, cpu: sh.CPU, mem: sh.Mem})
	best := choice{pos: -1}
	from, loss := k, (*glut)(nil)
	if sh.Shared() {
		from, loss = 0, r.glut()
	}
	for whole := from; int(whole) < len(r.by); whole++ {
		for _, id := range r.by[whole] {
			if t[id] == nil {
				r.compute(t, id, sh, k)
			}
			score, hole := least(t[id], sh, loss)
			if (score > best.score && best.pos >= 0) || math.IsInf(score, 1) {
				continue
			}
			c := choice{score: score, whole: whole, hole: hole}
			nodes := r.kinds[id].nodes
			for i := len(nodes) - 1; i >= 0; i-- {
				c.pos = nodes[i]
				if best.pos >= 0 && !c.better(&best, r.byID) {
					break
				}
				if barred != nil && barred.has(c.pos) {
					continue
				}
				if int32(v.room[c.pos]) >= k || (sh.Shared() && v.can.has(c.pos)) {
					best = c
					break
				}
			}
		}
	}
	return best
}

// score returns by how much k GPUs for a shape would raise the cost of a kind.
func (r *ranks) score(id int32, sh *Shape, k int32) float64 {
	t := r.table(rankKey{k: k, share: sh.Share, cpu: sh.CPU, mem: sh.Mem})
	if t[id] == nil {
		r.compute(t, id, sh, k)
	}
	score, _ := least(t[id], sh, nil)
	return score
}

func (r *ranks) table(key rankKey) table {
	t := r.tables[key]
	if t == nil && len(r.tables) >= maxTables {
		clear(r.tables)
	}
	if n := len(r.kinds) - len(t); n > 0 {
		t = append(t, make(table, n)...)
		r.tables[key] = t
	}
	return t
}

// compute fills in the ways of a request on a kind of node.
func (r *ranks) compute(t table, id int32, sh *Shape, k int32) {
	t[id] = ways(r.scorer, &r.kinds[id].sight, r.kinds[id].cost, sh, k, &r.after)
}

// ways returns by how much a request raises the cost of a node, for a share on
// each GPU that has it: once for those of which the same is free, ascending. It
// is empty, not nil, if the request does not fit there.
func ways(sc scorer, s *sight, cost float64, sh *Shape, k int32, after *sight) []way {
	out := []way{}
	try := func(free int16) {
		after.free, after.cpu, after.mem = append(after.free[:0], s.free...), s.cpu, s.mem
		after.after(k, sh.Share, sh.CPU, sh.Mem, free)
		out = append(out, way{hole: free, rise: sc.rise(sc.cost(after) - cost)})
	}
	if !sh.Shared() {
		try(cluster.WholeGPU)
		return out
	}
	last := int16(-1)
	for _, free := range s.free {
		if free != last && int32(free) >= sh.Share {
			try(free)
		}
		last = free
	}
	return out
}

// least returns the least score of some ways, infinite if there are none, and
// for a share what is free of the GPU that it takes then.
func least(ways []way, sh *Shape, loss *glut) (score float64, hole int16) {
	score = math.Inf(1)
	for _, w := range ways {
		d := w.rise
		if loss != nil {
			d += loss[(w.hole-int16(sh.Share))/unit] - loss[w.hole/unit]
		}
		if d < score {
			score, hole = d, w.hole
		}
	}
	return score, hole
}

// Aside returns the node on which CPUs and memory that are taken without a GPU
// raise the cost of its state least, by the score; "" if no node has them. It
// takes nothing. Jobs always have GPUs, but published orders of arrivals hold
// pods that have none. It looks at all nodes.
func (f *Fleet) Aside(cpu, mem int64) cluster.NodeID {
	f.settle()
	sh := &Shape{Share: cluster.WholeGPU, CPU: cpu, Mem: mem}
	best := choice{pos: -1}
	for _, x := range f.nodes {
		if x.cpu < cpu || x.mem < mem {
			continue
		}
		c := choice{pos: x.pos}
		for i := range x.rooms {
			c.whole += x.rooms[i].whole
			switch r := f.ranks(x.rooms[i].pool); {
			case r == nil:
			case r.of[x.pos] < 0:
				c.score += r.scorer.rise(0)
			default:
				c.score += r.score(r.of[x.pos], sh, 0)
			}
		}
		if best.pos < 0 || c.better(&best, f.tiesByID()) {
			best = c
		}
	}
	if best.pos < 0 {
		return ""
	}
	return f.nodes[best.pos].is.ID
}
