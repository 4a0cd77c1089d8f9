package allreduce

import (
	"math/bits"

	"github.com/gangline/gangline/allreduce/kernel"
)

// DefaultSmallBytes is up to where a vector is combined in few steps rather than with few bytes: a step costs tens of microseconds
// between machines, in which a fast network carries about as much.
const DefaultSmallBytes = 32 << 10

// doubles says whether a call goes by recursive doubling.
func (g *Group) doubles(t *transfer) bool {
	return t.call == callAllReduce && g.mesh.dial != nil && !t.wire.narrow() && len(t.vector.data) <= min(g.cfg.SmallBytes, g.cfg.ChunkBytes)
}

// runDoubling combines a short vector in log2 of the ranks' number of steps: in step k each rank exchanges all that it has with the one
// whose number differs in bit k. With p the largest power of two that is not above the number of ranks, rank r >= p gives its elements to
// rank r-p before, and gets the result after.
//
// Both partners put the lower one's elements first, so both get the same bits: the order of addition depends on ranks alone.
func (g *Group) runDoubling(t *transfer) {
	t.toSend, t.toReceive, t.sent, t.received = 1, 0, 0, 0 // the call as a whole
	me, n := g.cfg.Rank, g.cfg.WorldSize
	p := 1 << (bits.Len(uint(n)) - 1) //nolint:gosec // positive
	op, typ, data := t.op.combines(), t.vector.typ, t.vector.data
	if me >= p {
		if g.give(t, me-p, 0) && g.receive(t, me-p, 1, func(theirs []byte) { copy(data, theirs) }) {
			t.sent = 1
		}
		return
	}
	if me+p < n && !g.receive(t, me+p, 0, func(theirs []byte) { kernel.Combine(op, typ, data, data, theirs) }) {
		return
	}
	for bit := 1; bit < p; bit <<= 1 {
		partner := me ^ bit
		if !g.give(t, partner, bit+1) || !g.receive(t, partner, bit+1, func(theirs []byte) {
			if me < partner {
				kernel.Combine(op, typ, data, data, theirs)
			} else {
				kernel.Combine(op, typ, data, theirs, data)
			}
		}) {
			return
		}
	}
	if t.op == Mean {
		kernel.Divide(typ, data, n)
	}
	if me+p < n && !g.give(t, me+p, 1) {
		return
	}
	t.sent = 1
}

// give sends the whole vector as it is now to a rank, as a step of this call.
func (g *Group) give(t *transfer, rank, step int) bool {
	w, err := g.outgoing(g.life, rank, LaneCalls)
	if err != nil {
		g.fail(rank, err)
		return false
	}
	f := g.pool.Get(len(t.vector.data))
	copy(f.Data, t.vector.data)
	f.Header = g.stamp(t.header(g.sequence, step))
	f.Rank = g.cfg.Rank
	return g.put(w, f)
}

// receive waits for a rank's vector in a step of this call.
func (g *Group) receive(t *transfer, rank, step int, use func(theirs []byte)) bool {
	f := g.get(g.incoming(rank, LaneCalls), nil, t.header(g.sequence, step), len(t.vector.data))
	if f == nil {
		return false
	}
	use(f.Data)
	f.Release()
	return true
}
