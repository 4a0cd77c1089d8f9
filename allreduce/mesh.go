package allreduce

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gangline/gangline/allreduce/internal/point"
)

// Lane says what a link to a rank is for: what waits on one must not stand before what is needed on another. The numbers travel on the
// wire: never change one.
type Lane uint8

// The lanes.
const (
	LaneCalls    Lane = 1 // steps of collectives
	LaneMessages Lane = 2 // Send and Recv
	LaneNodes    Lane = 3 // the ring over machines
)

// Dialer opens a link to any rank, for a Group to send on; the other rank's transport gives its end to [Group.Accept]. It returns once the
// link is connected.
type Dialer func(ctx context.Context, rank int, lane Lane) (Link, error)

// place is where a wire leads, or comes from.
type place struct {
	rank int
	lane Lane
}

// mesh is the links to ranks that are no neighbours, made when they are first needed. Each carries data one way, and credits the other way.
// They have no heartbeats while nobody waits on them: who is lost is found out on the ring.
type mesh struct {
	dial  Dialer    // nil: there is none
	nodes chan Link // from the leader of the previous machine; one at most

	mu       sync.Mutex // guards what follows
	closed   bool
	to       map[place]*wire
	from     map[place]*wire
	dialling map[place]chan struct{} // each closed when the dial under way has ended
	turns    map[int]chan struct{}   // each holds a token while a Send to the rank is under way
	watched  bool                    // somebody looks after wires
	wait     sync.WaitGroup          // readers, and who looks after wires
}

// wire is one of these links, seen from one end.
type wire struct {
	peer int
	lane Lane // of what comes
	link Link
	left chan struct{} // closed when nothing comes any more
	why  error         // set before left closes

	turn chan struct{} // holds a token while a message is received

	acked  atomic.Uint64 // of the frames sent
	credit chan struct{}
	sent   uint64

	inbox    chan *Frame
	taken    uint64
	credited uint64
	message  uint64 // Sends or Recvs so far

	group   *Group
	waiting atomic.Int32  // calls that wait for what comes on it, or for what they send to go; see wirewatch.go
	heard   atomic.Int64  // when something came, or 0
	came    atomic.Uint64 // bytes
	asking  atomic.Bool   // a sign of life is being asked for
	bide    bide
}

// Connect lets the group reach ranks that are no neighbours, from the next call on. Call it on every rank or on none, before the first
// call.
func (g *Group) Connect(dial Dialer) { g.mesh.dial = dial }

// Accept takes the link that a rank has opened to this one. The group owns it. It may be called at any time.
func (g *Group) Accept(rank int, lane Lane, link Link) {
	m := &g.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	if lane == LaneNodes && !m.closed {
		select {
		case m.nodes <- link:
			return
		default: // it has one
		}
	}
	w := g.wireFrom(place{rank, lane})
	if lane == LaneNodes || m.closed || w.link != nil {
		go func() { _ = link.Close() }() // one at a time; the other side sees its end
		return
	}
	w.link = link
	g.watchOver()
	m.wait.Go(func() { g.readWire(w, g.takeData) })
}

// wireFrom returns the wire on which a rank sends; it may have no link yet. The caller holds mu.
func (g *Group) wireFrom(at place) *wire {
	if g.mesh.from == nil {
		g.mesh.from = map[place]*wire{}
	}
	w := g.mesh.from[at]
	if w == nil {
		w = &wire{group: g, peer: at.rank, lane: at.lane, left: make(chan struct{}), turn: make(chan struct{}, 1), inbox: make(chan *Frame, g.cfg.Window)}
		g.mesh.from[at] = w
	}
	return w
}

// incoming is wireFrom for who holds no lock.
func (g *Group) incoming(rank int, lane Lane) *wire {
	g.mesh.mu.Lock()
	defer g.mesh.mu.Unlock()
	return g.wireFrom(place{rank, lane})
}

// outgoing returns the wire to a rank, dialled if it was not.
func (g *Group) outgoing(ctx context.Context, rank int, lane Lane) (*wire, error) {
	m := &g.mesh
	at := place{rank, lane}
	m.mu.Lock()
	for m.dialling[at] != nil {
		done := m.dialling[at]
		m.mu.Unlock()
		<-done
		m.mu.Lock()
	}
	if w := m.to[at]; w != nil {
		m.mu.Unlock()
		return w, nil
	}
	done := make(chan struct{})
	if m.dialling == nil {
		m.dialling = map[place]chan struct{}{}
	}
	m.dialling[at] = done
	m.mu.Unlock()
	w, err := g.openWire(ctx, at)
	m.mu.Lock()
	delete(m.dialling, at)
	m.mu.Unlock()
	close(done)
	return w, err
}

// openWire dials a rank.
func (g *Group) openWire(ctx context.Context, at place) (*wire, error) {
	m, rank := &g.mesh, at.rank
	if m.dial == nil {
		return nil, fmt.Errorf("all-reduce of job %d epoch %d: rank %d is no neighbour of rank %d, and this group has links to neighbours only",
			g.cfg.Job, g.cfg.Epoch, rank, g.cfg.Rank)
	}
	g.at(point.WireDials)
	link, err := m.dial(ctx, rank, at.lane)
	if err != nil {
		return nil, fmt.Errorf("a link to rank %d: %w", rank, err)
	}
	g.at(point.WireOpen)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		go func() { _ = link.Close() }() // nobody sends on it
		return nil, g.err
	}
	w := &wire{group: g, peer: rank, link: link, left: make(chan struct{}), credit: make(chan struct{}, 1)}
	if m.to == nil {
		m.to = map[place]*wire{}
	}
	m.to[at] = w
	g.watchOver()
	m.wait.Go(func() { g.readWire(w, g.takeWireCredit) })
	return w, nil
}

// readWire takes frames until the wire ends. Its end alone is no loss: who needs it finds out.
func (g *Group) readWire(w *wire, take func(*wire, *Frame) bool) {
	for {
		f, err := w.next()
		if err != nil {
			w.why = err
			close(w.left)
			return
		}
		if f.Job != g.cfg.Job || f.Epoch != g.cfg.Epoch || f.Formation != g.cfg.Formation {
			g.fail(w.peer, &FencedError{
				Job: g.cfg.Job, Epoch: g.cfg.Epoch, Formation: g.cfg.Formation,
				OtherJob: f.Job, OtherEpoch: f.Epoch, OtherFormation: f.Formation, OtherRank: w.peer,
			})
			f.Release()
			continue
		}
		if g.sign(w, f) || !take(w, f) {
			f.Release()
		}
	}
}

// takeData puts a frame into the wire's inbox, which the window keeps from being full.
func (g *Group) takeData(w *wire, f *Frame) bool {
	if f.Kind != KindData {
		g.fail(w.peer, fmt.Errorf("it sent a frame of kind %d where only data is sent", f.Kind))
		return false
	}
	select {
	case w.inbox <- f:
		return true
	default:
		g.fail(w.peer, fmt.Errorf("it sent more than its window of %d frames", g.cfg.Window))
		return false
	}
}

func (g *Group) takeWireCredit(w *wire, f *Frame) bool {
	if f.Kind == KindCredit && f.Count > w.acked.Load() {
		w.acked.Store(f.Count)
		select {
		case w.credit <- struct{}{}:
		default:
		}
	}
	return false
}

// put sends one frame on a wire, once its window is open. It reports whether to go on; if not, the group has ended.
func (g *Group) put(w *wire, f *Frame) bool {
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	for w.sent-w.acked.Load() >= uint64(g.cfg.Window) { //nolint:gosec // 2..1024
		select {
		case <-w.credit:
		case <-g.ended:
			f.Release()
			return false
		case <-w.left:
			f.Release()
			g.fail(w.peer, fmt.Errorf("its link broke: %w", w.why))
			return false
		}
	}
	w.sent++
	g.at(point.WireSends)
	if err := w.link.Send(f); err != nil {
		g.failWire(w, err)
		return false
	}
	g.at(point.WireSent)
	return true
}

// failWire ends the group after a wire broke.
func (g *Group) failWire(w *wire, err error) {
	g.failLater(w.peer, fmt.Errorf("its link broke: %w", err))
}

// failLater ends the group for what may only follow from a loss elsewhere. The ring may be about to tell the true reason, and has the first word.
func (g *Group) failLater(rank int, cause error) {
	patience := time.NewTimer(g.linger())
	defer patience.Stop()
	select {
	case <-g.ended:
	case <-patience.C:
		g.fail(rank, cause)
	}
}

// get takes the next frame of a wire, which must have this header, but for the sender, and size. The end of back, if there is one, is the end of
// the wire too. It returns nil when the group has ended. Whoever gets
// the frame releases it.
func (g *Group) get(w, back *wire, want Header, size int) *Frame {
	var f *Frame
	var gone <-chan struct{}
	w.waiting.Add(1)
	defer w.waiting.Add(-1)
	if back != nil {
		gone = back.left
		back.waiting.Add(1)
		defer back.waiting.Add(-1)
	}
	select {
	case f = <-w.inbox:
	case <-g.ended:
		return nil
	case <-w.left:
		if f = g.leftover(w, w); f == nil {
			return nil
		}
	case <-gone:
		if f = g.leftover(w, back); f == nil {
			return nil
		}
	}
	g.at(point.WireTaken)
	want = g.stamp(want)
	want.Rank = f.Rank
	if f.Header != want || len(f.Data) != size {
		g.fail(w.peer, &MismatchError{Rank: w.peer, Want: describe(&want, size), Got: describe(&f.Header, len(f.Data))})
		f.Release()
		return nil
	}
	w.taken++
	if w.taken == 1 || w.taken-w.credited >= g.wireCreditEvery(w.lane) { // the first tells that the wire is open: see settleWires
		w.credited = w.taken
		_ = w.link.Send(g.control(Header{Kind: KindCredit, Rank: g.cfg.Rank, Count: w.taken})) // a broken link is its reader's to notice
	}
	return f
}

// wireCreditEvery is how many frames are taken from a wire for one credit. In the steps of calls a rank is one frame ahead of who takes it at most, so all but one
// place of the window may be taken and not yet credited; credits would else be half of what ranks read there.
func (g *Group) wireCreditEvery(lane Lane) uint64 {
	if lane == LaneCalls {
		return uint64(max(1, g.cfg.Window*3/4)) //nolint:gosec // below Window
	}
	return g.creditEvery()
}

// leftover returns what was sent on a wire before it, or the one back, ended; or ends the group.
func (g *Group) leftover(w, ended *wire) *Frame {
	select {
	case f := <-w.inbox:
		return f
	default:
		g.failWire(w, ended.why)
		return nil
	}
}

// closeWires closes all wires when the group ends, and waits for their readers.
func (g *Group) closeWires() {
	<-g.ended
	m := &g.mesh
	m.mu.Lock()
	m.closed = true
	var links []Link
	for _, side := range []map[place]*wire{m.to, m.from} {
		for _, w := range side {
			if w.link != nil {
				links = append(links, w.link)
			}
		}
	}
	across := g.nodes.across
	m.mu.Unlock()
	var closing sync.WaitGroup
	if across != nil {
		closing.Go(func() { _ = across.Close() }) // returns nil
	}
	select {
	case l := <-m.nodes: // nobody has taken it
		links = append(links, l)
	default:
	}
	for _, l := range links {
		closing.Go(func() { _ = l.Close() }) // what could fail is to say so
	}
	closing.Wait()
	m.wait.Wait()
}
