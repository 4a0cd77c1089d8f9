package allreduce

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gangline/gangline/allreduce/internal/point"
	"github.com/gangline/gangline/allreduce/kernel"
)

// asked is what a caller wants: all that ranks must agree on.
type asked struct {
	kind   Kind
	call   Call
	vector Vector
	op     Op
	wire   Wire   // WireGroup: as they are
	mark   uint64 // of a broadcast the root; of an all-reduce which tag or bundle it is (markOf, Fuser), 0: neither
}

// transfer is one call under way: the frames of one layout, sent to the next
// rank and received from the previous one, both in the order of their index.
// A group has one and uses it again: a call allocates nothing.
type transfer struct {
	asked
	course course // one of the next three
	circle circle
	chain  chain
	round  round

	toSend, toReceive int // frames
	sent, received    int
	direct            bool     // frames to the next rank can lie in the vector
	held              []*Frame // processed frames that wait to be sent on, in order
}

// complete says whether nothing is left to send or to receive.
func (t *transfer) complete() bool { return t.sent == t.toSend && t.received == t.toReceive }

// prepare lays out what a call sends and receives on the ring.
func (g *Group) prepare(t *transfer) {
	a := &t.asked
	switch {
	case a.kind == KindBarrier:
		t.round = round{world: g.cfg.WorldSize}
		t.course = &t.round
	case a.call == callBroadcast:
		t.chain = chain{
			length: a.vector.Len(), world: g.cfg.WorldSize, chunk: g.chunk(a.vector.typ),
			rank: g.cfg.Rank, root: int(a.mark), //nolint:gosec // a rank
		}
		t.course = &t.chain
	default:
		l := newLayout(a.vector.Len(), g.cfg.WorldSize, g.chunk(a.vector.typ), g.depth())
		switch a.call {
		case callReduceScatter:
			l = l.scatters()
		case callAllGather:
			l = l.gathers()
		default:
		}
		t.circle = circle{layout: l, rank: g.cfg.Rank}
		t.course = &t.circle
	}
	t.toSend, t.toReceive = t.course.frames()
	t.sent, t.received = 0, 0
	t.direct = g.next.direct != nil && g.next.direct.Direct() && !a.wire.narrow()
	t.held = t.held[:0]
}

// call makes one call for its caller, after all that were started before. The parent of all public calls that wait.
func (g *Group) call(ctx context.Context, a asked) error {
	if err := g.queue.enter(); err != nil {
		return err
	}
	defer g.queue.leave()
	g.ctx.enter(ctx, g)
	err := g.callIn(ctx, a)
	g.ctx.leave()
	if err == nil && ctx.Err() != nil && isClosed(g.ended) { // others have heard of the end, and some of no result
		return g.err
	}
	return err
}

func (g *Group) callIn(ctx context.Context, a asked) error {
	if err := ctx.Err(); err != nil && !isClosed(g.ended) {
		return fmt.Errorf("all-reduce of job %d epoch %d: not started: %w", g.cfg.Job, g.cfg.Epoch, err)
	}
	if err := g.queue.drain(g.ended); err != nil {
		return err
	}
	return g.perform(a)
}

// perform makes one call. Who calls it sees to it that calls do not overlap.
func (g *Group) perform(a asked) error {
	g.busy.Lock()
	defer g.busy.Unlock()
	if isClosed(g.ended) {
		return g.err
	}
	g.sequence++
	if g.cfg.WorldSize == 1 { // the result over one vector is itself
		return nil
	}
	t := &g.doing
	began, bytes := g.now(), a.vector.Len()*a.vector.typ.Size()
	t.asked = a
	g.at(point.CallBegins)
	g.tellCall(&a)
	g.underWay.Store(g.sequence)
	defer g.settle()
	for _, e := range g.edges() {
		g.missLeft(e)
	}
	if g.shares(t) || g.doubles(t) || g.hierarchic(t) {
		g.goElsewhere()
	}
	switch {
	case g.shares(t):
		g.runShared(t)
	case g.doubles(t):
		g.runDoubling(t)
	case g.hierarchic(t):
		g.runNodes(t)
	default:
		g.prepare(t)
		if t.wire.narrow() {
			t.makeUp()
		}
		g.run(t)
	}
	t.vector = Vector{} // it is the caller's
	if !t.complete() {
		return g.err
	}
	g.finished.Store(g.sequence)
	g.at(point.CallEnds)
	g.meter.count(bytes, time.Duration(g.now()-began))
	return nil
}

// settle ends a call, and the group if a loss was heard of meanwhile that did not concern it.
func (g *Group) settle() {
	g.underWay.Store(0)
	if d := g.deferred.Load(); d != nil {
		g.failFrom(d.from, d.lost, d.cause)
	}
}

// cancelled ends the group when the context of a call ended. If neighbours never
// came, it is they who are missing, not this rank.
func (g *Group) cancelled(cause error) {
	var absent []int
	for _, e := range g.edges() {
		if !e.up.Load() {
			absent = append(absent, e.peer)
		}
	}
	if len(absent) == 0 {
		g.fail(g.cfg.Rank, fmt.Errorf("its call ended before the ring's did: %w", cause))
		return
	}
	waited := &AbsentError{Ranks: compact(absent), Waited: time.Since(g.start).Round(time.Millisecond)}
	g.fail(absent[0], fmt.Errorf("%w: %w", waited, cause))
}

// run moves frames until the transfer is complete or the group has ended.
func (g *Group) run(t *transfer) {
	g.landing.open(t)
	defer g.landing.close()
	for !t.complete() {
		for g.canSend(t) {
			if !g.sendOne(t) {
				return
			}
		}
		if !g.step(t) {
			return
		}
	}
}

// canSend says whether the next frame in order is there and the window is open.
func (g *Group) canSend(t *transfer) bool {
	if t.sent >= t.toSend || g.sent-g.acked.Load() >= uint64(g.cfg.Window) {
		return false
	}
	_, _, own := t.course.outgoing(t.sent)
	return own || len(t.held) > 0
}

// sendOne sends the next frame: our own chunk at the first step, a copy of it unless the link does without, and a
// frame held for forwarding at all others. It reports whether to go on.
func (g *Group) sendOne(t *transfer) bool {
	var f *Frame
	if lo, hi, own := t.course.outgoing(t.sent); own {
		f = g.ownFrame(t, lo, hi)
	} else {
		f = t.held[0]
		t.held = append(t.held[:0], t.held[1:]...)
	}
	f.Header = g.stamp(t.header(g.sequence, t.sent))
	f.Rank = g.cfg.Rank
	t.sent++
	g.sent++
	g.at(point.ChunkSends)
	var err error
	if t.direct {
		lies := f.Data
		if err = g.next.direct.SendDirect(f); errors.Is(err, ErrMemory) {
			copy(make([]byte, len(lies)), lies) // faults here, where a caller that is prepared for it expects it
		}
	} else {
		err = g.next.link.Send(f)
	}
	if err != nil {
		g.blame(g.next, err)
		return false
	}
	g.at(point.ChunkSent)
	return true
}

// ownFrame returns a frame with our own elements lo to hi.
func (g *Group) ownFrame(t *transfer, lo, hi int) *Frame {
	mine := t.vector.slice(lo, hi)
	if t.direct {
		f := g.small.Get(0)
		f.Place(mine)
		return f
	}
	f := g.pool.Get(t.wire.size(len(mine)))
	if t.wire.narrow() {
		kernel.Narrow(t.wire).Encode(f.Data, mine, t.lost(lo, hi))
	} else {
		copy(f.Data, mine)
	}
	return f
}

// blame ends the group after a Send did not work. The link's reader may be
// about to hear the true reason, so it has the first word.
func (g *Group) blame(e *edge, err error) {
	patience := time.NewTimer(g.linger())
	defer patience.Stop()
	select {
	case <-g.ended:
	case <-e.left:
		g.failLeft(e)
	case <-patience.C:
		g.fail(e.peer, fmt.Errorf("sending to it: %w", err))
	}
}

// step waits for one event: a frame, an open window, a neighbour that left, or
// the group's end. It reports whether to go on.
func (g *Group) step(t *transfer) bool {
	var inbox <-chan *Frame
	var prevLeft, nextLeft <-chan struct{}
	if t.received < t.toReceive && len(t.held) < g.depth() {
		inbox, prevLeft = g.inbox, g.prev.left
	}
	if t.sent < t.toSend {
		nextLeft = g.next.left
	}
	if t.complete() {
		return true
	}
	select {
	case <-g.ended:
		return false
	case f := <-inbox:
		return g.take(t, f)
	case <-g.credit:
		return true
	case <-prevLeft:
		select {
		case f := <-inbox: // sent before it left
			return g.take(t, f)
		default:
		}
		g.failLeft(g.prev)
		return false
	case <-nextLeft:
		g.failLeft(g.next)
		return false
	}
}

// take checks one received frame, works it in, and holds it for forwarding or
// releases it. It reports whether to go on.
func (g *Group) take(t *transfer, f *Frame) bool {
	g.at(point.ChunkTaken)
	lo, hi, work := t.course.incoming(t.received)
	mine := t.vector.slice(lo, hi)
	if err := g.mismatch(t, f, t.wire.size(len(mine))); err != nil {
		f.Release()
		g.fail(g.prev.peer, err)
		return false
	}
	if f.spoilt {
		copy(mine, f.Data) // faults here, where a caller that is prepared for it expects it
		f.Release()
		g.fail(g.cfg.Rank, ErrMemory)
		return false
	}
	if t.wire.narrow() {
		g.takeNarrow(t, f, lo, hi, work)
	} else {
		g.takeExact(t, f, mine, work)
	}
	g.at(point.ChunkWorkedIn)
	if work.forward {
		t.held = append(t.held, f)
	} else {
		f.Release()
	}
	t.received++
	g.taken++
	if g.taken-g.credited >= g.creditEvery() {
		g.credited = g.taken
		h := Header{Kind: KindCredit, Rank: g.cfg.Rank, Count: g.taken}
		_ = g.prev.link.Send(g.control(h)) // a broken link is the reader's to report
	}
	return true
}

// takeExact works a received frame in, and leaves in it what travels on.
func (g *Group) takeExact(t *transfer, f *Frame, mine []byte, w work) {
	if f.placed {
		f.Settle() // the rest lies where it belongs
		return
	}
	if w.complete && (t.direct || !w.forward) { // what travels on can lie in the vector
		kernel.Combine(t.op.combines(), t.vector.typ, mine, f.Data, mine)
		if t.op == Mean {
			kernel.Divide(t.vector.typ, mine, g.cfg.WorldSize)
		}
		f.Place(mine)
		return
	}
	if w.reduce {
		kernel.Reduce(t.op.combines(), t.vector.typ, f.Data, mine)
	}
	if w.complete && t.op == Mean {
		kernel.Divide(t.vector.typ, f.Data, g.cfg.WorldSize)
	}
	if w.keep {
		copy(mine, f.Data)
	}
}

// header is what the frame with this index says of its call.
func (t *transfer) header(sequence uint64, index int) Header {
	return Header{
		Kind: t.kind, Call: t.call, Sequence: sequence, Index: uint64(index), //nolint:gosec // not negative
		Length: uint64(t.vector.Len()), Type: t.vector.typ, Op: t.op, Wire: t.wire, Count: t.mark,
	}
}

// mismatch says how a frame differs from the one that must come next, or nil.
func (g *Group) mismatch(t *transfer, f *Frame, size int) error {
	want := g.stamp(t.header(g.sequence, t.received))
	want.Rank = f.Rank
	if f.Header == want && len(f.Data) == size {
		return nil
	}
	return &MismatchError{Rank: g.prev.peer, Want: describe(&want, size), Got: describe(&f.Header, len(f.Data))}
}

// describe says which frame of which call a header belongs to.
func describe(h *Header, size int) string {
	if h.Kind == KindBarrier {
		return fmt.Sprintf("call %d (Barrier), frame %d", h.Sequence, h.Index)
	}
	how := ""
	switch h.Call {
	case callBroadcast:
		how = fmt.Sprintf(" from rank %d", h.Count)
	case callAllReduce, callReduceScatter:
		how = fmt.Sprintf(", %v%s", h.Op, markText(h.Count))
		if h.Wire.narrow() {
			how += fmt.Sprintf(", %v on the wire", h.Wire)
		}
	default:
	}
	return fmt.Sprintf("call %d (%v of %d elements, %v%s), frame %d of %d bytes", h.Sequence, h.Call, h.Length, h.Type, how, h.Index, size)
}
