package allreduce

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gangline/gangline/allreduce/internal/point"
)

// edge is a link to one neighbour and what is known of it. Times are
// nanoseconds since the group's start.
type edge struct {
	link   Link
	direct DirectLink // the link, if it is one
	peer   int
	left   chan struct{} // closed by the reader when the neighbour left in good order
	last   atomic.Uint64 // the last call that it took part in to the end; set before left closes

	up    atomic.Bool  // something was heard
	heard atomic.Int64 // when last

	// Our heartbeats to the neighbour. One is outstanding at a time; a
	// neighbour that answers none, or lets none be sent, does not read.
	pinged  atomic.Uint64
	pingAt  atomic.Int64 // when the outstanding one was due, or of later proof that it reads
	beating atomic.Int64 // when the Send under way began; 0: none
	echoed  atomic.Uint64
	toEcho  atomic.Uint64 // the neighbour's last heartbeat
	taken   uint64        // bytes that the neighbour has read, by its own word; reader only
	answer  chan struct{} // holds a token when toEcho has grown
	hasLeft bool          // reader only
}

func newEdge(link Link, peer int) *edge {
	direct, _ := link.(DirectLink)
	return &edge{link: link, direct: direct, peer: peer, left: make(chan struct{}), answer: make(chan struct{}, 1)}
}

func (g *Group) now() int64 { return int64(time.Since(g.start)) }

// read takes frames from one link until it ends.
func (g *Group) read(e *edge) {
	for {
		f, err := g.recv(e)
		if err != nil {
			if !e.hasLeft && g.deferred.Load() == nil { // after its word on a loss its end is no news
				g.fail(e.peer, fmt.Errorf("its link broke: %w", err))
			}
			return
		}
		g.at(point.Heard)
		now := g.now()
		e.heard.Store(now)
		if !e.up.Load() {
			e.pingAt.Store(now) // our first heartbeat may have waited long for the link
			e.up.Store(true)
		}
		if !g.accept(e, f) {
			f.Release()
		}
	}
}

// recv waits for a frame from one link. What the previous rank sends can lie in the vector of the call under way at once.
func (g *Group) recv(e *edge) (*Frame, error) {
	if e == g.prev && e.direct != nil {
		f, err := e.direct.RecvDirect(&g.landing)
		if err == nil {
			g.landing.passed(&f.Header)
		}
		return f, err
	}
	return e.link.Recv()
}

// accept handles one frame and reports whether it kept it. It never waits, so
// that heartbeats and aborts are heard whatever the calls do.
func (g *Group) accept(e *edge, f *Frame) bool {
	if f.Job != g.cfg.Job || f.Epoch != g.cfg.Epoch || f.Formation != g.cfg.Formation {
		g.fail(e.peer, &FencedError{
			Job: g.cfg.Job, Epoch: g.cfg.Epoch, Formation: g.cfg.Formation,
			OtherJob: f.Job, OtherEpoch: f.Epoch, OtherFormation: f.Formation, OtherRank: e.peer,
		})
		return false
	}
	switch f.Kind {
	case KindData, KindBarrier:
		return g.deliver(e, f)
	case KindCredit:
		g.takeCredit(e, f.Count)
	case KindHeartbeat:
		g.compareCalls(e, f)
		if f.Count > e.toEcho.Load() { // only a new one is answered, so answers end
			e.toEcho.Store(f.Count)
			select {
			case e.answer <- struct{}{}:
			default:
			}
		}
		if f.Ack > e.echoed.Load() {
			e.echoed.Store(f.Ack)
		}
		if f.Length > e.taken { // a part of a chunk, behind which our heartbeat waits
			e.taken = f.Length
			e.pingAt.Store(g.now())
		}
	case KindAbort:
		g.hearAbort(e, f)
	case KindLeave:
		if !e.hasLeft {
			e.hasLeft = true
			e.last.Store(f.Sequence)
			close(e.left)
			g.missLeft(e)
		}
	case KindHello: // a link's own greeting, good as a sign of life
	case KindRefuse:
		g.fail(e.peer, errors.New("it refused this rank: "+f.Cause))
	default:
		g.fail(e.peer, fmt.Errorf("it sent a frame of unknown kind %d: is it of another release?", f.Kind))
	}
	return false
}

// missLeft ends the group if a neighbour that left is missed by the call under way. All ranks take part in every call, so it need not be
// this one that waits for it: who does may be no neighbour of it, and not know.
func (g *Group) missLeft(e *edge) {
	if call := g.underWay.Load(); call > 0 && isClosed(e.left) && e.last.Load() < call {
		g.failLeft(e)
	}
}

// failLeft ends the group since a neighbour left before the call under way. It does no harm to ranks that are still at a call which that one
// took part in.
func (g *Group) failLeft(e *edge) { g.failFrom(e.last.Load()+1, e.peer, ErrLeft) }

// hearAbort ends the group by another rank's word, or once the call under way has ended, if that is one which the lost rank took part in.
func (g *Group) hearAbort(e *edge, f *Frame) {
	lost := min(max(f.Rank, 0), g.cfg.WorldSize-1)
	cause := fmt.Errorf("%s (reported by rank %d)", trimReporter(f.Cause), e.peer)
	from := f.Sequence
	g.deferred.Store(&abort{from: from, lost: lost, cause: cause})
	if call := g.underWay.Load(); call == 0 || call >= from {
		g.failFrom(from, lost, cause)
	}
}

// abort is what a neighbour said of a lost rank: from which call on it is missed, 0: at once.
type abort struct {
	from  uint64
	lost  int
	cause error
}

// trimReporter cuts the note of an earlier rank, so that a cause does not grow
// with each hop of its way round the ring.
func trimReporter(cause string) string {
	head, _, _ := strings.Cut(cause, " (reported by rank ")
	return head
}

// deliver puts a frame into the inbox. The window keeps it from being full.
func (g *Group) deliver(e *edge, f *Frame) bool {
	if e != g.prev {
		g.fail(e.peer, errors.New("it sent a chunk backwards"))
		return false
	}
	g.seeRing(f)
	select {
	case g.inbox <- f:
		return true
	default:
		g.fail(e.peer, fmt.Errorf("it sent more than its window of %d frames", g.cfg.Window))
		return false
	}
}

// takeCredit opens the window to the next rank. Only the reader of next calls it.
func (g *Group) takeCredit(e *edge, count uint64) {
	if e != g.next || count <= g.acked.Load() {
		return
	}
	g.acked.Store(count)
	e.pingAt.Store(g.now()) // who takes chunks does read
	select {
	case g.credit <- struct{}{}:
	default:
	}
}

// beat sends heartbeats on one link, by the clock and at once in answer to the
// neighbour's, until the group ends. A Send that waits
// forever is ended by closeEdge.
func (g *Group) beat(e *edge) {
	tick := time.NewTicker(max(1, g.cfg.DetectTimeout/beatsPerTimeout))
	defer tick.Stop()
	due := true
	for {
		if due && e.echoed.Load() >= e.pinged.Load() {
			e.pingAt.Store(g.now())
			e.pinged.Add(1)
		}
		h := Header{Kind: KindHeartbeat, Rank: g.cfg.Rank, Count: e.pinged.Load(), Ack: e.toEcho.Load()}
		if e == g.prev {
			h.Length = g.landing.came.Load()
		}
		h.Sequence, h.Index = g.saysCall()
		g.at(point.Beats)
		e.beating.Store(max(1, g.now()))
		err := e.link.Send(g.control(h))
		e.beating.Store(0)
		if err != nil {
			return // the reader of the same link learns why
		}
		select {
		case <-tick.C:
			due = true
		case <-e.answer:
			due = false
		case <-e.left:
			return
		case <-g.ended:
			return
		}
	}
}

// watch finds neighbours that are silent, deaf or never came.
func (g *Group) watch() {
	tick := time.NewTicker(max(1, g.cfg.DetectTimeout/checksPerTimeout))
	defer tick.Stop()
	last := g.now()
	for {
		select {
		case <-tick.C:
		case <-g.ended:
			return
		}
		now := g.now()
		if time.Duration(now-last) > g.cfg.DetectTimeout/2 {
			// This process itself was stopped. What it did not hear then says
			// nothing about its neighbours: grant them a full timeout.
			for _, e := range g.edges() {
				e.heard.Store(now)
				e.pingAt.Store(now)
			}
		}
		last = now
		g.check(now)
	}
}

// check judges both neighbours at a moment.
func (g *Group) check(now int64) {
	var absent []int
	for _, e := range g.edges() {
		if isClosed(e.left) {
			continue
		}
		silent, unread := time.Duration(now-e.heard.Load()), e.unread(now)
		switch {
		case !e.up.Load():
			if time.Duration(now) >= g.cfg.JoinTimeout {
				absent = append(absent, e.peer)
			}
		case silent >= g.cfg.DetectTimeout:
			g.fail(e.peer, fmt.Errorf("nothing was heard from it for %v (limit %v)",
				silent.Round(time.Millisecond), g.cfg.DetectTimeout))
		case unread >= g.cfg.DetectTimeout:
			g.fail(e.peer, fmt.Errorf("it has read nothing for %v (limit %v), though it sends",
				unread.Round(time.Millisecond), g.cfg.DetectTimeout))
		}
	}
	if len(absent) > 0 {
		g.fail(absent[0], &AbsentError{Ranks: compact(absent), Waited: g.cfg.JoinTimeout})
	}
}

// unread returns for how long the neighbour has given no sign that it reads,
// though there was something to read.
func (e *edge) unread(now int64) time.Duration {
	pingAt := e.pingAt.Load()
	if e.echoed.Load() < e.pinged.Load() {
		return time.Duration(now - pingAt)
	}
	if beating := e.beating.Load(); beating > 0 {
		return time.Duration(now - max(beating, pingAt))
	}
	return 0
}

// compact removes the second of two equal ranks: in a world of two both
// neighbours are the same one.
func compact(ranks []int) []int {
	if len(ranks) == 2 && ranks[0] == ranks[1] {
		return ranks[:1]
	}
	return ranks
}

// closeEdge says bye on one link when the group ends, or says nothing when the
// neighbour left first, and closes the link. It does not close it before: with the link from a rank goes the port to which wires lead, and
// others may still open them, or have sent on them what has not been read.
func (g *Group) closeEdge(e *edge) {
	<-g.ended
	g.at(point.SaysBye)
	if !isClosed(e.left) {
		said := make(chan struct{})
		go func() {
			defer close(said)
			_ = e.link.Send(g.control(g.bye)) // best effort: silence says the same, later
		}()
		linger := time.NewTimer(g.linger())
		defer linger.Stop()
		select {
		case <-said:
		case <-linger.C: // the neighbour is hung; Close ends the Send
		}
		_ = e.link.Close()
		<-said
		return
	}
	_ = e.link.Close()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
