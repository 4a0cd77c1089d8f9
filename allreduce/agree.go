package allreduce

import "fmt"

// Ranks that make different calls are told so by the first frame that does not fit. But a call goes by one of several ways (the ring, links between ranks,
// shared memory), chosen by what is called and by the length: where these differ each rank waits on its own way for what the others send on another. So
// heartbeats say which call is under way, and neighbours compare: where not all ranks make the same call, some two neighbours do not.

// A call in short: what decides on its way. Lengths above 2^48 elements look like shorter ones, and do not fit into any memory.
const (
	shortCall   = 60
	shortType   = 56
	shortOp     = 52
	shortWire   = 48
	shortLength = 1<<shortWire - 1
	shortField  = 15
)

// inShort packs a call.
func (a *asked) inShort() uint64 {
	return uint64(a.call)<<shortCall | uint64(a.vector.typ)<<shortType | uint64(a.op)<<shortOp | uint64(a.wire)<<shortWire |
		uint64(a.vector.Len())&shortLength //nolint:gosec // not negative
}

// tellCall says of a call what neighbours compare, before it is under way.
func (g *Group) tellCall(a *asked) { g.short.Store(a.inShort()) }

// saysCall returns the number of the call under way and the call in short; 0: none is. It may be called from any goroutine.
func (g *Group) saysCall() (sequence, short uint64) {
	sequence = g.underWay.Load()
	short = g.short.Load() // of this call or a later one
	if sequence == 0 || g.underWay.Load() != sequence {
		return 0, 0
	}
	return sequence, short
}

// compareCalls ends the group if a neighbour is at the same call as this rank by number, and it is another.
func (g *Group) compareCalls(e *edge, f *Frame) {
	sequence, short := g.saysCall()
	if sequence == 0 || f.Sequence != sequence || f.Index == short {
		return
	}
	g.fail(e.peer, &MismatchError{Rank: e.peer, Want: shortText(sequence, short), Got: shortText(sequence, f.Index)})
}

// A broadcast ends on its root before others have called: who is at another call by number then cannot compare. But its frames go round the ring, and a
// frame of the call under way there, while this rank makes that call elsewhere, is one of another call.

// ringSeen bounds the calls of which frames that came round the ring are remembered. A neighbour that needs nothing from this rank may be some calls ahead.
const ringSeen = 64

// goElsewhere notes that the call under way does not go round the ring.
func (g *Group) goElsewhere() {
	g.elsewhere.Store(g.sequence)
	if g.ringSeen[g.sequence%ringSeen].Load() == g.sequence {
		g.failSplit(g.sequence)
	}
}

// seeRing notes a frame that came round the ring.
func (g *Group) seeRing(f *Frame) {
	g.ringSeen[f.Sequence%ringSeen].Store(f.Sequence)
	if f.Sequence > 0 && g.elsewhere.Load() == f.Sequence {
		g.failSplit(f.Sequence)
	}
}

func (g *Group) failSplit(sequence uint64) {
	g.fail(g.prev.peer, &MismatchError{
		Rank: g.prev.peer, Want: shortText(sequence, g.short.Load()), Got: fmt.Sprintf("call %d, another one, which goes round the ring", sequence),
	})
}

// shortText describes a call in short.
func shortText(sequence, short uint64) string {
	h := Header{Call: Call(short >> shortCall & shortField), Type: Type(short >> shortType & shortField), Op: Op(short >> shortOp & shortField), Wire: Wire(short >> shortWire & shortField)}
	if h.Call == 0 {
		return fmt.Sprintf("call %d (Barrier)", sequence)
	}
	text := fmt.Sprintf("call %d (%v of %d elements, %v", sequence, h.Call, short&shortLength, h.Type)
	if h.Op != 0 {
		text += fmt.Sprintf(", %v", h.Op)
	}
	if h.Wire.narrow() {
		text += fmt.Sprintf(", %v on the wire", h.Wire)
	}
	return text + ")"
}
