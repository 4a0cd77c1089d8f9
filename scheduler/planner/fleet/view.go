package fleet

import "github.com/gangline/gangline/scheduler/cluster"

// class is what shapes of any size may have in common: what each GPU needs
// beside it, and which nodes are for the job.
type class struct {
	key   classKey
	spec  cluster.JobSpec // selector and tolerations
	views []*view         // by pool; nil: not made
}

type classKey struct {
	cpu, mem  int64
	admission int32 // see Fleet.admissions
	within    part  // a gang is within one such part of a node
}

// view is one pool as a class sees it: how many GPUs each node has for it. It
// catches up with the pool when it is asked, at the cost of what has changed.
type view struct {
	pool  *pool
	class *class
	seen  uint64   // changes before this one are in
	used  uint64   // when it was last asked, for dropping
	room  []uint16 // by position: GPUs that a gang of the class could have there
	by    []set    // nodes by room; by[0] is not kept
	can   set      // nodes with CPUs and memory for one GPU, wherever that may be
	not   set      // nodes that are not for the class
	total int64    // sum of room
	doms  []domains
	lacks string // what most of not lack, as Node.Admits says it; "" until somebody asks
}

// domains is the room in each domain of one level.
type domains struct {
	total []int32 // by domain
	count []int32 // nodes by domain and room, width+1 of each domain
}

// maxViews bounds the memory of views: each takes some three bytes for each node.
const maxViews = 512

// view returns a class' view of a pool, caught up.
func (f *Fleet) view(c *class, p *pool) *view {
	if int(p.index) >= len(c.views) {
		c.views = append(c.views, make([]*view, len(f.pools)-len(c.views))...)
	}
	v := c.views[p.index]
	if v == nil {
		if f.views >= maxViews {
			f.dropView()
		}
		v = f.newView(c, p)
		c.views[p.index] = v
		f.views++
	}
	f.follow(v)
	v.used = f.now()
	return v
}

func (f *Fleet) newView(c *class, p *pool) *view {
	v := &view{pool: p, class: c, room: make([]uint16, f.size()), by: make([]set, p.width+1)}
	for k := range v.by {
		if k > 0 {
			v.by[k] = newSet(f.size())
		}
	}
	v.can, v.not = newSet(f.size()), newSet(f.size())
	for _, pos := range p.nodes {
		if n := f.nodes[pos].is; (len(n.Taints) > 0 || len(c.spec.Selector) > 0) && n.Admits(&c.spec) != "" {
			v.not.add(pos)
		}
	}
	f.readAll(v)
	return v
}

// dropView drops the view that was not asked for longest.
func (f *Fleet) dropView() {
	var oldest *view
	for _, c := range f.classes { // any order: a minimum of what only costs time, never changes a choice
		for _, v := range c.views {
			if v != nil && (oldest == nil || v.used < oldest.used) {
				oldest = v
			}
		}
	}
	if oldest != nil {
		oldest.class.views[oldest.pool.index] = nil
		f.views--
	}
}

// follow brings a view up to date.
func (f *Fleet) follow(v *view) {
	now := f.now()
	if v.seen == now {
		return
	}
	if v.seen < f.from || now-v.seen > uint64(len(v.pool.nodes)) {
		f.readAll(v)
		return
	}
	for s := v.seen; s < now; s++ {
		x := f.nodes[f.log[s-f.from]]
		if x.changed != s {
			continue // it changed again later
		}
		if r := x.room(v.pool); r != nil {
			v.read(x, r)
		}
	}
	v.seen = now
}

// readAll brings a view up to date by looking at all nodes.
func (f *Fleet) readAll(v *view) {
	for _, pos := range v.pool.nodes {
		x := f.nodes[pos]
		v.read(x, x.room(v.pool))
	}
	v.seen = f.now()
}

// read takes what a node has for the class now.
func (v *view) read(x *node, r *room) {
	c := &v.class.key
	pos, most := x.pos, r.whole
	if c.within != byNone && !v.not.has(pos) {
		most = r.largest(x, c.within)
	}
	k := most
	can := true
	if c.cpu > 0 && x.cpu < c.cpu*int64(max(k, 1)) {
		can = x.cpu >= c.cpu
		k = int32(max(x.cpu/c.cpu, 0))
	}
	if c.mem > 0 && x.mem < c.mem*int64(max(k, 1)) {
		can = can && x.mem >= c.mem
		k = min(k, int32(max(x.mem/c.mem, 0)))
	}
	if k = min(k, most); v.not.has(pos) {
		k, can = 0, false
	}
	if can != v.can.has(pos) {
		if can {
			v.can.add(pos)
		} else {
			v.can.remove(pos)
		}
	}
	was := int32(v.room[pos])
	if was == k {
		return
	}
	v.room[pos] = uint16(k)
	if was > 0 {
		v.by[was].remove(pos)
	}
	if k > 0 {
		v.by[k].add(pos)
	}
	v.total += int64(k - was)
	for l := range v.doms {
		v.doms[l].move(x.dom[l], was, k, v.pool.width+1)
	}
}

func (d *domains) move(domain, was, now, stride int32) {
	if domain < 0 || d.total == nil {
		return
	}
	d.total[domain] += now - was
	d.count[domain*stride+was]--
	d.count[domain*stride+now]++
}

// domains returns the room in each domain of a level.
func (f *Fleet) domains(v *view, l int) *domains {
	if v.doms == nil {
		v.doms = make([]domains, len(f.doms))
	}
	d := &v.doms[l]
	if d.total != nil {
		return d
	}
	stride := v.pool.width + 1
	d.total = make([]int32, len(f.doms[l].names))
	d.count = make([]int32, int32(len(f.doms[l].names))*stride)
	for _, pos := range v.pool.nodes {
		if domain := f.nodes[pos].dom[l]; domain >= 0 {
			k := int32(v.room[pos])
			d.total[domain] += k
			d.count[domain*stride+k]++
		}
	}
	return d
}

// gives is how many GPUs a gang gets of a node with some room.
func (sh *Shape) gives(room int32) int32 {
	switch {
	case sh.PerNode == 0:
		return room
	case room < sh.PerNode:
		return 0
	default:
		return sh.PerNode
	}
}

// capacity returns how many GPUs a gang could have in each domain of a level,
// without the barred nodes. The result is scratch.
func (f *Fleet) capacity(v *view, sh *Shape, l int, barred *set) []int32 {
	d := f.domains(v, l)
	caps := append(f.scratch.caps[:0], d.total...)
	f.scratch.caps = caps
	stride := v.pool.width + 1
	if sh.PerNode > 0 {
		for i := range caps {
			n := int32(0)
			for k := sh.PerNode; k < stride; k++ {
				n += d.count[int32(i)*stride+k]
			}
			caps[i] = n * sh.PerNode
		}
	}
	if barred == nil {
		return caps
	}
	for pos := barred.next(0, nil, nil); pos >= 0; pos = barred.next(pos+1, nil, nil) {
		if domain := f.nodes[pos].dom[l]; domain >= 0 {
			caps[domain] -= sh.gives(int32(v.room[pos]))
		}
	}
	return caps
}
