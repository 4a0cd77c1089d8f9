package allreduce

import (
	"context"
	"fmt"
	"time"
)

// transfer is one call under way: the frames of one layout, sent to the next
// rank and received from the previous one, both in the order of their index.
type transfer struct {
	kind   Kind
	layout layout
	data   []float32
	total  int // frames to send, and to receive

	sent, received int
	held           []*Frame // processed frames that wait to be sent on, in order
}

// call runs one transfer. The parent of all public calls.
func (g *Group) call(ctx context.Context, t *transfer) error {
	select {
	case g.busy <- struct{}{}:
	default:
		return ErrBusy
	}
	defer func() { <-g.busy }()
	if isClosed(g.ended) {
		return g.err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("all-reduce of job %d epoch %d: not started: %w", g.cfg.Job, g.cfg.Epoch, err)
	}
	g.sequence++
	if t.total == 0 { // a world of one: the sum of one vector is itself
		return nil
	}
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cancelled)
		g.cancelled(context.Cause(ctx))
	})
	g.run(t)
	if !stop() {
		<-cancelled
	}
	if isClosed(g.ended) && (t.sent < t.total || t.received < t.total || ctx.Err() != nil) {
		return g.err
	}
	return nil
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
	for t.sent < t.total || t.received < t.total {
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
	if t.sent >= t.total || g.sent-g.acked.Load() >= uint64(g.cfg.Window) {
		return false
	}
	return t.layout.piece(t.sent).step == 0 || len(t.held) > 0
}

// sendOne sends the next frame: a copy of our own chunk at the first step, a
// frame held for forwarding at all others. It reports whether to go on.
func (g *Group) sendOne(t *transfer) bool {
	var f *Frame
	if p := t.layout.piece(t.sent); p.step == 0 {
		lo, hi := t.bounds(sendSegment(g.cfg.Rank, p.step, g.cfg.WorldSize), p)
		f = g.pool.Get(hi - lo)
		copy(f.Data, t.data[lo:hi])
	} else {
		f = t.held[0]
		t.held = append(t.held[:0], t.held[1:]...)
	}
	f.Header = g.stamp(Header{
		Kind: t.kind, Sequence: g.sequence, Index: uint64(t.sent), Length: uint64(len(t.data)), Rank: g.cfg.Rank,
	})
	t.sent++
	g.sent++
	if err := g.next.link.Send(f); err != nil {
		g.blame(g.next, err)
		return false
	}
	return true
}

// blame ends the group after a Send did not work. The link's reader may be
// about to hear the true reason, so it has the first word.
func (g *Group) blame(e *edge, err error) {
	patience := time.NewTimer(g.linger())
	defer patience.Stop()
	select {
	case <-g.ended:
	case <-e.left:
		g.fail(e.peer, ErrLeft)
	case <-patience.C:
		g.fail(e.peer, fmt.Errorf("sending to it: %w", err))
	}
}

// step waits for one event: a frame, an open window, a neighbour that left, or
// the group's end. It reports whether to go on.
func (g *Group) step(t *transfer) bool {
	var inbox <-chan *Frame
	var prevLeft, nextLeft <-chan struct{}
	if t.received < t.total && len(t.held) < g.depth() {
		inbox, prevLeft = g.inbox, g.prev.left
	}
	if t.sent < t.total {
		nextLeft = g.next.left
	}
	if t.sent == t.total && t.received == t.total {
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
		g.fail(g.prev.peer, ErrLeft)
		return false
	case <-nextLeft:
		g.fail(g.next.peer, ErrLeft)
		return false
	}
}

// take checks one received frame, works it in, and holds it for forwarding or
// releases it. It reports whether to go on.
func (g *Group) take(t *transfer, f *Frame) bool {
	p := t.layout.piece(t.received)
	lo, hi := t.bounds(recvSegment(g.cfg.Rank, p.step, g.cfg.WorldSize), p)
	if err := g.mismatch(t, f, hi-lo); err != nil {
		f.Release()
		g.fail(g.prev.peer, err)
		return false
	}
	mine := t.data[lo:hi]
	if t.layout.reduces(p.step) {
		addInto(f.Data, mine)
	}
	if !t.layout.reduces(p.step) || t.layout.completes(p.step) {
		copy(mine, f.Data)
	}
	if t.received+t.layout.perSeg < t.total && t.layout.forwards(p.step) {
		t.held = append(t.held, f)
	} else {
		f.Release()
	}
	t.received++
	g.taken++
	if g.taken-g.credited >= g.creditEvery() {
		g.credited = g.taken
		h := Header{Kind: KindCredit, Rank: g.cfg.Rank, Count: g.taken}
		_ = g.prev.link.Send(&Frame{Header: g.stamp(h)}) // a broken link is the reader's to report
	}
	return true
}

// mismatch says how a frame differs from the one that must come next, or nil.
func (g *Group) mismatch(t *transfer, f *Frame, elements int) error {
	if f.Kind == t.kind && f.Sequence == g.sequence && f.Index == uint64(t.received) &&
		f.Length == uint64(len(t.data)) && len(f.Data) == elements {
		return nil
	}
	name := map[Kind]string{KindData: "AllReduce", KindBarrier: "Barrier"}
	describe := func(kind Kind, sequence, index, length uint64, elements int) string {
		return fmt.Sprintf("call %d (%s of %d elements), frame %d with %d elements",
			sequence, name[kind], length, index, elements)
	}
	return &MismatchError{
		Rank: g.prev.peer,
		Want: describe(t.kind, g.sequence, uint64(t.received), uint64(len(t.data)), elements),
		Got:  describe(f.Kind, f.Sequence, f.Index, f.Length, len(f.Data)),
	}
}

func (t *transfer) bounds(segment int, p piece) (lo, hi int) { return t.layout.bounds(segment, p) }
