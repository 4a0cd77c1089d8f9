package fleet

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// node is what is free on one node.
type node struct {
	is       *cluster.Node
	gpus     []gpu    // as in is.GPUs
	uuids    []string // of these, never edited: workers have parts of it
	pos      int32
	cpu, mem int64
	rooms    []room   // by GPU type
	paths    []string // names of its domains by level of the policy, "": none; as far as known
	dom      []int32  // its domains by level, -1: none
	held     *group   // by what it is kept for; nil: anyone may use it
	changed  uint64   // sequence number of its last change
}

// gpu is what choosing needs to know of a GPU, close together.
type gpu struct {
	island int32
	free   int16 // thousandths
	numa   int16
}

// room is a node as seen by gangs of one GPU type.
type room struct {
	pool  *pool
	gpus  []int16 // indexes of its GPUs of the type; nil: all of the node's
	holes []int16 // what is free of GPUs that are free in part, each value once, ascending
	whole int32   // GPUs that are wholly free
	milli int32   // thousandths that are free
	apart bool    // the GPUs are on several islands, or off several NUMA nodes

	total, alive, open int32 // see Sum
}

// take makes a node's GPUs anew.
func (x *node) take(n *cluster.Node) {
	x.paths = nil
	x.gpus, x.uuids = make([]gpu, len(n.GPUs)), make([]string, len(n.GPUs))
	for i := range n.GPUs {
		x.gpus[i] = gpu{island: n.GPUs[i].Island, numa: int16(n.GPUs[i].NUMA)}
		x.uuids[i] = n.GPUs[i].UUID
	}
}

// same reports whether a node's next version differs from its last one only in
// what is free, held or healthy.
func (x *node) same(n *cluster.Node) bool {
	was := x.is
	if len(was.GPUs) != len(n.GPUs) || !slices.Equal(was.Labels, n.Labels) || !slices.Equal(was.Placed, n.Placed) || !slices.Equal(was.Taints, n.Taints) {
		return false
	}
	for i := range x.rooms {
		r := &x.rooms[i]
		for k := range r.size(x) {
			at := r.gpu(k)
			if g := &n.GPUs[at]; g.Type != r.pool.gpuType || g.Island != x.gpus[at].island || int16(g.NUMA) != x.gpus[at].numa || g.UUID != x.uuids[at] {
				return false
			}
		}
	}
	return true
}

// read takes a node's facts and reports whether what is free has changed, whether
// more may be free now, and how many GPUs are wholly free if all others are taken or
// out of reach, -1 if some may be free in part.
func (x *node) read(n *cluster.Node) (changed, grew bool, whole int32) {
	cpu, mem := n.CPUMilli-n.CPUUsed, n.MemBytes-n.MemUsed
	changed, grew = cpu != x.cpu || mem != x.mem, cpu > x.cpu || mem > x.mem
	x.is, x.cpu, x.mem = n, cpu, mem
	open := n.State == cluster.NodeReady && n.Drain == nil && len(n.Stale) == 0
	gpus, parted := x.gpus, false
	for i := range n.GPUs[:len(gpus)] {
		free := int16(0)
		switch g := &n.GPUs[i]; {
		case g.Job != 0: // all of it is taken, as of most
		case open && g.Healthy && len(g.Shares) == 0:
			free = cluster.WholeGPU
			whole++
		default:
			free = int16(n.UsableMilli(i))
			parted = parted || free > 0
		}
		if is := &gpus[i].free; free != *is {
			changed, grew = true, grew || free > *is
			*is = free
		}
	}
	if parted {
		whole = -1
	}
	return changed, grew, whole
}

// takes reports whether GPU i could be given to a job if no other held it.
func (x *node) takes(i int) bool {
	g := &x.is.GPUs[i]
	if x.is.State != cluster.NodeReady || x.is.Drain != nil || !g.Healthy {
		return false
	}
	if len(x.is.Stale) == 0 {
		return true
	}
	alone := *x.is
	alone.GPUs = []cluster.GPU{{UUID: g.UUID, Healthy: true}}
	return alone.Usable(0)
}

// heldBy is how much of a GPU a job holds, in thousandths.
func heldBy(g *cluster.GPU, id cluster.JobID) int16 {
	if g.Job == id {
		return cluster.WholeGPU
	}
	for i := range g.Shares {
		if g.Shares[i].Job == id {
			return int16(g.Shares[i].Milli)
		}
	}
	return 0
}

// room returns the node's room for gangs of a pool's type, or nil.
func (x *node) room(p *pool) *room {
	for i := range x.rooms {
		if x.rooms[i].pool == p {
			return &x.rooms[i]
		}
	}
	return nil
}

// makeRooms groups the node's GPUs by type.
func (x *node) makeRooms(f *Fleet) {
	x.rooms = nil
	gpus := x.is.GPUs
	mixed := slices.ContainsFunc(gpus, func(g cluster.GPU) bool { return g.Type != gpus[0].Type })
	for i := range gpus {
		p := f.pool(gpus[i].Type)
		r := x.room(p)
		if r == nil {
			x.rooms = append(x.rooms, room{pool: p})
			r = &x.rooms[len(x.rooms)-1]
			p.nodes = append(p.nodes, x.pos)
		}
		if mixed {
			r.gpus = append(r.gpus, int16(i))
		}
		r.total++
		p.width = max(p.width, r.total)
	}
	for i := range x.rooms {
		r := &x.rooms[i]
		r.total = 0 // recount counts it
		for k := range r.size(x) {
			a, b := &x.gpus[r.gpu(k)], &x.gpus[r.gpu(0)]
			r.apart = r.apart || a.island != b.island || a.numa != b.numa
		}
	}
	slices.SortFunc(x.rooms, func(a, b room) int { return int(a.pool.index - b.pool.index) })
}
