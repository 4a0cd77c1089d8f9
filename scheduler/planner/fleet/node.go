package fleet

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// node is what is free on one node.
type node struct {
	is       *cluster.Node
	pos      int32
	free     []int16 // by GPU, thousandths
	cpu, mem int64
	rooms    []room  // by GPU type
	dom      []int32 // domain by level of the policy, -1: none
	held     *group  // by what it is kept for; nil: anyone may use it
	changed  uint64  // sequence number of its last change
}

// room is a node as seen by gangs of one GPU type.
type room struct {
	pool  *pool
	whole int32   // GPUs that are wholly free
	milli int64   // thousandths that are free
	holes []int16 // what is free of GPUs that are free in part, each value once, ascending
	sum   Sum     // of the node's GPUs of this type; Free and Milli are not used
	gpus  []int16 // indexes of its GPUs; nil: all of the node's
	apart bool    // they are on several islands
}

// sameNature reports whether two versions of a node differ only in what is
// free, held or healthy.
func sameNature(a, b *cluster.Node) bool {
	same := func(a, b cluster.GPU) bool { return a.Type == b.Type && a.Island == b.Island }
	return slices.Equal(a.Labels, b.Labels) && slices.Equal(a.Taints, b.Taints) && slices.EqualFunc(a.GPUs, b.GPUs, same)
}

// read takes a node's facts and reports whether more may be free now.
func (x *node) read(n *cluster.Node) (grew bool) {
	cpu, mem := n.CPUMilli-n.CPUUsed, n.MemBytes-n.MemUsed
	grew = cpu > x.cpu || mem > x.mem
	x.is, x.cpu, x.mem = n, cpu, mem
	for i := range x.free {
		free := int16(n.UsableMilli(i))
		grew = grew || free > x.free[i]
		x.free[i] = free
	}
	return grew
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
		if r.sum.Total++; r.sum.Total > int64(p.width) {
			p.width = int32(r.sum.Total)
		}
	}
	for i := range x.rooms {
		r := &x.rooms[i]
		first := gpus[r.gpu(0)].Island
		for k := range r.size(x) {
			r.apart = r.apart || gpus[r.gpu(k)].Island != first
		}
		r.sum = Sum{}
	}
	slices.SortFunc(x.rooms, func(a, b room) int { return int(a.pool.index - b.pool.index) })
}
