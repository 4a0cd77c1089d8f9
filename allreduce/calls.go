package allreduce

import (
	"context"
	"fmt"

	"github.com/gangline/gangline/allreduce/kernel"
)

// AllReduce replaces each element of v by the result of op over that element of all ranks. All ranks give the same type, length
// (also 0) and op. When it returns nil, v holds the same bits on every rank; the same inputs with the same WorldSize and
// length give the same bits in every run.
//
// The order is fixed: on the ring the elements of segment i (package comment: "Order of sums") are combined as x[i+1] + x[i+2] + ... +
// x[i], ranks modulo WorldSize, from left to right; in shared memory as x[0] + x[1] + ...; short vectors as the package comment says. Sums of 16-bit floats are made in float32 and rounded at each rank.
//
// On an error the group is broken, v is neither input nor result and must not be used, and every later call returns the same
// error, with three exceptions that leave group and data untouched: ErrBusy, a vector or operation that is none, and a ctx that
// had ended before the call. A ctx that ends during the call breaks the ring for all ranks, as there is no way back from half a
// result.
//
// It waits for ranks that live but have not called yet, without a limit but ctx's: a rank may compute for as long as it needs.
func (g *Group) AllReduce(ctx context.Context, v Vector, op Op) error {
	return g.move(ctx, asked{kind: KindData, call: callAllReduce, vector: v, op: op})
}

// ReduceScatter leaves the result of op over all ranks in this rank's share of v, elements lo to hi as Share says; the rest of v
// holds the rank's own input still. Rules and errors are those of AllReduce.
func (g *Group) ReduceScatter(ctx context.Context, v Vector, op Op) (lo, hi int, err error) {
	lo, hi = Share(v.Len(), g.cfg.WorldSize, g.cfg.Rank)
	return lo, hi, g.move(ctx, asked{kind: KindData, call: callReduceScatter, vector: v, op: op})
}

// AllGather fills v on every rank with the shares of all ranks: rank r gives elements lo to hi of Share(v.Len(), WorldSize, r).
// Rules and errors are those of AllReduce.
func (g *Group) AllGather(ctx context.Context, v Vector) error {
	return g.move(ctx, asked{kind: KindData, call: callAllGather, vector: v})
}

// Broadcast replaces v on every rank by that of the root, along the ring. All ranks give the same root, type and length. The root,
// and ranks near it, may return before others have called. Errors are those of AllReduce, and a root that is no rank.
func (g *Group) Broadcast(ctx context.Context, v Vector, root int) error {
	if root < 0 || root >= g.cfg.WorldSize {
		return fmt.Errorf("broadcast from rank %d: ranks are 0..%d", root, g.cfg.WorldSize-1)
	}
	if v.typ.Size() == 0 {
		return errNoVector
	}
	a := asked{kind: KindData, call: callBroadcast, vector: v, mark: uint64(root)} //nolint:gosec // a rank
	if _, err := g.form(&a); err != nil {
		return err
	}
	return g.call(ctx, a)
}

// Barrier returns nil once every rank has called it. Errors are as in AllReduce.
func (g *Group) Barrier(ctx context.Context) error {
	return g.call(ctx, asked{kind: KindBarrier})
}

// Share returns which elements of a vector of this length are a rank's own in ReduceScatter and AllGather: parts that differ by one
// element at most, the longer ones first.
func Share(length, world, rank int) (lo, hi int) { return evenSplit(length, world, rank) }

// move runs a collective round the ring.
func (g *Group) move(ctx context.Context, a asked) error {
	if err := a.check(); err != nil {
		return err
	}
	var err error
	if a.wire, err = g.form(&a); err != nil {
		return err
	}
	return g.call(ctx, a)
}

// check says why no rank could make this call, or nothing.
func (a *asked) check() error {
	if a.vector.typ.Size() == 0 {
		return errNoVector
	}
	if a.call != callAllGather && !kernel.Known(a.op.combines(), a.vector.typ) {
		return fmt.Errorf("%v: %v of %v is not known: allowed are sum, product, min, max, mean", a.call, a.op, a.vector.typ)
	}
	return nil
}

// chunk returns how many elements a frame holds at most.
func (g *Group) chunk(t Type) int { return g.cfg.ChunkBytes / t.Size() }
