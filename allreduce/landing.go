package allreduce

import (
	"sync"
	"sync/atomic"
)

// landing is where the reader of the link from the previous rank puts payloads that are results already: into the caller's vector, if the call
// that they belong to is under way. That makes the copy from a frame unnecessary, which cost a fifth of a long call's time.
//
// The memory of an element is free to be written when its result comes: the result contains this rank's own element, which has therefore
// been sent or added before.
type landing struct {
	group *Group
	came  atomic.Uint64 // bytes

	// What the reader alone knows: the newest call of which a frame came, and the frame of it that is next.
	sequence, next uint64

	mu          sync.Mutex // guards what follows, and the vector's ownership
	landed      sync.Cond
	t           *transfer // the call under way; nil: none takes payloads
	busy        bool      // the reader writes to the vector
	interrupted bool
}

func (l *landing) init(g *Group) {
	l.group = g
	l.landed.L = &l.mu
}

// open lets payloads of a call lie in its vector until close. Of a transfer only what stays as it is during the call may be looked at.
func (l *landing) open(t *transfer) {
	l.mu.Lock()
	l.t = t
	l.mu.Unlock()
}

// close returns once the vector is the caller's alone. After a call that ended well it never waits: all its frames have come. After another it waits no
// longer than it takes to interrupt a read.
func (l *landing) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.t = nil
	for l.busy {
		if !l.interrupted {
			l.interrupted = true
			l.group.prev.direct.Interrupt()
		}
		l.landed.Wait()
	}
}

var _ Landing = (*landing)(nil)

// Place implements Landing for the reader of the link from the previous rank.
func (l *landing) Place(h *Header, size int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.t
	if t == nil || h.Index >= uint64(t.toReceive) || !l.isNext(h) { //nolint:gosec // not negative
		return nil
	}
	index := int(h.Index) //nolint:gosec // checked
	want := l.group.stamp(t.header(l.group.underWay.Load(), index))
	want.Rank = h.Rank
	lo, hi, work := t.course.incoming(index)
	if *h != want || work.reduce || (work.forward && !t.direct) || t.wire.narrow() {
		return nil
	}
	mine := t.vector.slice(lo, hi)
	if size != len(mine) || size == 0 {
		return nil
	}
	l.busy = true
	return mine
}

// outOfOrder is next of a call of which a frame was not the next one.
const outOfOrder = ^uint64(0)

// isNext says whether a frame comes in its turn. Only so its bytes may lie in the vector: a result that comes before this rank's own element has been sent is
// no result.
func (l *landing) isNext(h *Header) bool {
	return h.Sequence == l.sequence && h.Index == l.next || h.Sequence > l.sequence && h.Index == 0
}

// passed notes that a frame has come.
func (l *landing) passed(h *Header) {
	switch {
	case h.Kind != KindData:
	case l.isNext(h):
		l.sequence, l.next = h.Sequence, h.Index+1
	default:
		l.sequence, l.next = max(h.Sequence, l.sequence), outOfOrder
	}
}

// Came implements Landing. On a slow link a chunk is long under way: each part of it is a sign that the previous rank lives, and is told
// to it by heartbeats as one that this rank reads. The answer to our own heartbeat waits behind the chunk. That rank may yet read nothing, but
// then it has no more than a window to send.
func (l *landing) Came(n int) {
	l.came.Add(uint64(n)) //nolint:gosec // not negative
	e, now := l.group.prev, l.group.now()
	e.heard.Store(now)
	e.pingAt.Store(now)
}

// Landed implements Landing.
func (l *landing) Landed() (interrupted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	interrupted = l.interrupted
	l.busy, l.interrupted = false, false
	l.landed.Broadcast()
	return interrupted
}
