package allreduce

import (
	"context"
	"fmt"
)

// Send gives v to another rank, whose Recv from this one takes it: the nth Send to it is the nth Recv there. It may return before the
// other has called, and v is the caller's again when it returns. A vector of more than a window of chunks waits for the other's Recv, so two ranks that
// both send long vectors to each other first wait for ever: let one receive first, or call Recv from another goroutine.
//
// Sends to different ranks, Recvs and collectives may be under way at once; Sends to one rank wait for each other. Errors are those of
// AllReduce, a rank that is none or this one itself, and a group that was not given links to ranks beyond its neighbours.
func (g *Group) Send(ctx context.Context, v Vector, to int) error {
	if err := g.mayTalk(ctx, v, to); err != nil {
		return err
	}
	defer g.attend(ctx)()
	turn := g.sendTurn(to)
	select {
	case turn <- struct{}{}:
	case <-g.ended:
		return g.err
	}
	defer func() { <-turn }()
	w, err := g.outgoing(g.life, to, LaneMessages)
	if err != nil {
		g.fail(to, err)
		return g.err
	}
	w.message++
	chunk := g.chunk(v.typ)
	for i := range max(1, ceilDiv(v.Len(), chunk)) {
		part := v.slice(i*chunk, min((i+1)*chunk, v.Len()))
		f := g.pool.Get(len(part))
		copy(f.Data, part)
		f.Header = g.stamp(messageHeader(v, w.message, i))
		f.Rank = g.cfg.Rank
		if !g.put(w, f) {
			return g.err
		}
	}
	return nil
}

// Recv takes what another rank's Send gives to this one. The vector has the same type and length. Errors are those of Send.
func (g *Group) Recv(ctx context.Context, v Vector, from int) error {
	if err := g.mayTalk(ctx, v, from); err != nil {
		return err
	}
	defer g.attend(ctx)()
	w := g.incoming(from, LaneMessages)
	back, err := g.outgoing(g.life, from, LaneMessages) // by whose end it is known that the other is gone, though it never sent
	if err != nil {
		g.fail(from, err)
		return g.err
	}
	select {
	case w.turn <- struct{}{}:
	case <-g.ended:
		return g.err
	}
	defer func() { <-w.turn }()
	w.message++
	chunk := g.chunk(v.typ)
	for i := range max(1, ceilDiv(v.Len(), chunk)) {
		part := v.slice(i*chunk, min((i+1)*chunk, v.Len()))
		f := g.get(w, back, messageHeader(v, w.message, i), len(part))
		if f == nil {
			return g.err
		}
		copy(part, f.Data)
		f.Release()
	}
	return nil
}

// messageHeader is what frame i of the nth message on a wire says.
func messageHeader(v Vector, n uint64, i int) Header {
	return Header{Kind: KindData, Call: callSend, Sequence: n, Index: uint64(i), Length: uint64(v.Len()), Type: v.typ} //nolint:gosec // not negative
}

// mayTalk says why a Send or Recv cannot be, or nothing.
func (g *Group) mayTalk(ctx context.Context, v Vector, rank int) error {
	switch {
	case v.typ.Size() == 0:
		return errNoVector
	case rank < 0 || rank >= g.cfg.WorldSize || rank == g.cfg.Rank:
		return fmt.Errorf("rank %d cannot send to or receive from rank %d: ranks are 0..%d, and not itself", g.cfg.Rank, rank, g.cfg.WorldSize-1)
	case v.wire.narrow():
		return fmt.Errorf("a vector sent to one rank travels as it is, not as %v", v.wire)
	case isClosed(g.ended):
		return g.err
	case g.mesh.dial == nil:
		return fmt.Errorf("all-reduce of job %d epoch %d: this group has links to neighbours only: it cannot send to rank %d", g.cfg.Job, g.cfg.Epoch, rank)
	case ctx.Err() != nil:
		return fmt.Errorf("all-reduce of job %d epoch %d: not started: %w", g.cfg.Job, g.cfg.Epoch, ctx.Err())
	}
	return nil
}

// attend breaks the ring if ctx ends before the returned function is called: there is no way back from half a message.
func (g *Group) attend(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { g.cancelled(context.Cause(ctx)) })
	return func() { stop() }
}

// sendTurn lets one Send at a time go to a rank.
func (g *Group) sendTurn(rank int) chan struct{} {
	g.mesh.mu.Lock()
	defer g.mesh.mu.Unlock()
	if g.mesh.turns == nil {
		g.mesh.turns = map[int]chan struct{}{}
	}
	if g.mesh.turns[rank] == nil {
		g.mesh.turns[rank] = make(chan struct{}, 1)
	}
	return g.mesh.turns[rank]
}
