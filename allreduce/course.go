package allreduce

// Call says which collective a frame belongs to. The numbers travel on the wire: never change one.
type Call uint8

// The collectives that move elements.
const (
	callAllReduce     Call = 1
	callReduceScatter Call = 2
	callAllGather     Call = 3
	callBroadcast     Call = 4
	callSend          Call = 5
)

// String returns the name of the method.
func (c Call) String() string {
	switch c {
	case callAllReduce:
		return "AllReduce"
	case callReduceScatter:
		return "ReduceScatter"
	case callAllGather:
		return "AllGather"
	case callBroadcast:
		return "Broadcast"
	case callSend:
		return "Send"
	default:
		return "call of another release"
	}
}

// course says what a rank's frames of one call hold, in their order. It is pure.
type course interface {
	// frames returns how many frames this rank sends to its next rank, and receives from its previous one.
	frames() (send, receive int)
	// outgoing returns the elements in frame i that this rank sends, and whether they are its own rather than received ones.
	outgoing(i int) (lo, hi int, own bool)
	// incoming returns the elements in frame i that this rank receives and what to do with them.
	incoming(i int) (lo, hi int, w work)
}

// work is what a rank does with a frame that it received.
type work struct {
	reduce   bool // combine it with the own elements
	complete bool // that was the last combination: the result is final
	keep     bool // it is final: store it
	forward  bool // send it on
}

// circle is a course of reduce-scatter, all-gather or both.
type circle struct {
	layout
	rank int
}

func (c circle) frames() (send, receive int) { return c.layout.frames(), c.layout.frames() }

func (c circle) outgoing(i int) (lo, hi int, own bool) {
	p := c.piece(i)
	lo, hi = c.bounds(sendSegment(c.rank, p.step, c.world), p)
	return lo, hi, c.begins(p.step)
}

func (c circle) incoming(i int) (lo, hi int, w work) {
	p := c.piece(i)
	lo, hi = c.bounds(recvSegment(c.rank, p.step, c.world), p)
	w.reduce = c.reduces(p.step)
	w.complete = w.reduce && c.completes(p.step)
	w.keep = !w.reduce || w.complete
	w.forward = c.forwards(p.step)
	return lo, hi, w
}

// chain is the course of a broadcast: from the root along the ring to the rank before it, chunk after chunk.
type chain struct {
	length, world, chunk int
	rank, root           int
}

func (c chain) chunks() int { return max(1, ceilDiv(c.length, c.chunk)) }

// place returns how many ranks after the root this one stands.
func (c chain) place() int { return mod(c.rank-c.root, c.world) }

func (c chain) frames() (send, receive int) {
	if c.place() < c.world-1 {
		send = c.chunks()
	}
	if c.place() > 0 {
		receive = c.chunks()
	}
	return send, receive
}

func (c chain) outgoing(i int) (lo, hi int, own bool) {
	lo, hi = evenSplit(c.length, c.chunks(), i)
	return lo, hi, c.place() == 0
}

func (c chain) incoming(i int) (lo, hi int, w work) {
	lo, hi = evenSplit(c.length, c.chunks(), i)
	return lo, hi, work{keep: true, forward: c.place() < c.world-1}
}

// round is the course of a barrier: empty frames, as many as it takes for each rank to have heard of every other.
type round struct{ world int }

func (r round) frames() (send, receive int)           { return r.world - 1, r.world - 1 }
func (r round) outgoing(i int) (lo, hi int, own bool) { return 0, 0, i == 0 }
func (r round) incoming(i int) (lo, hi int, w work) {
	return 0, 0, work{forward: i+1 < r.world-1}
}
