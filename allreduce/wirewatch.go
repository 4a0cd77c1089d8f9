package allreduce

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A wire has no heartbeats while nobody waits on it: who is lost is found on the ring. But a connection can be dead between two ranks that live,
// whose other connections work: a network that forgot it, or drops what one sends the other. So who waits on a wire asks the other end for a sign of
// life, again and again, and gives the wire up if none comes. An answer costs the other nothing but its reader, whatever its calls do.

// bide is what is known of a wire on which a call may wait. Only watchWires uses it.
type bide struct {
	since time.Duration // since when a call has been seen to wait, or at that moment nothing could be heard; 0: none waits
	told  uint64        // bytes of what the other sends that it has been told of
}

var _ Landing = (*wire)(nil) // that takes no payload, and hears of each part of one

// Came implements Landing.
func (w *wire) Came(n int) {
	w.came.Add(uint64(n)) //nolint:gosec // not negative
	w.heard.Store(w.group.now())
}

// Place implements Landing.
func (w *wire) Place(*Header, int) []byte { return nil }

// Landed implements Landing.
func (w *wire) Landed() bool { return false }

// next waits for the next frame of a wire.
func (w *wire) next() (*Frame, error) {
	if direct, ok := w.link.(DirectLink); ok {
		return direct.RecvDirect(w)
	}
	return w.link.Recv()
}

// sign answers a sign of life that the other end asked for, and reports whether the frame was one.
func (g *Group) sign(w *wire, f *Frame) bool {
	w.heard.Store(g.now())
	if f.Kind != KindHeartbeat {
		return false
	}
	if f.Count > 0 {
		_ = w.link.Send(g.control(Header{Kind: KindHeartbeat, Rank: g.cfg.Rank, Ack: f.Count})) // the reader learns why not
	}
	return true
}

// watchOver begins to watch wires, once there is one. The caller holds the mesh's mu, and the group has not ended.
func (g *Group) watchOver() {
	if !g.mesh.watched {
		g.mesh.watched = true
		g.mesh.wait.Go(g.watchWires)
	}
}

// watchWires looks after wires on which calls wait, until the group ends.
func (g *Group) watchWires() {
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
		stopped := time.Duration(now-last) > g.cfg.DetectTimeout/2 // this process itself was: what it did not hear then says nothing
		last = now
		for _, w := range g.openWires() {
			g.lookAt(w, now, stopped)
		}
	}
}

// openWires returns all wires that have a link.
func (g *Group) openWires() []*wire {
	m := &g.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.AppendSeq(slices.Collect(maps.Values(m.to)), maps.Values(m.from))
	return slices.DeleteFunc(all, func(w *wire) bool { return w.link == nil })
}

// lookAt asks for a sign of life on a wire, and gives it up if none came for too long.
func (g *Group) lookAt(w *wire, now int64, stopped bool) {
	b := &w.bide
	came := w.came.Load()
	part := w.inbox != nil && came != b.told // of a long payload, say: its sender is to know
	b.told = came
	switch waits := w.waiting.Load() > 0; {
	case !waits:
		b.since = 0
	case b.since == 0 || stopped:
		b.since = time.Duration(now)
	}
	if b.since == 0 && !part {
		return
	}
	if silent := time.Duration(now) - max(b.since, time.Duration(w.heard.Load())); b.since > 0 && silent >= g.cfg.DetectTimeout {
		g.fail(w.peer, fmt.Errorf("nothing was heard on the link to it for %v (limit %v), though it may live: is there a network between the two that drops what they send?",
			silent.Round(time.Millisecond), g.cfg.DetectTimeout))
		return
	}
	if w.asking.CompareAndSwap(false, true) {
		g.mesh.wait.Go(func() { // it may wait behind a payload, or for ever
			_ = w.link.Send(g.control(Header{Kind: KindHeartbeat, Rank: g.cfg.Rank, Count: 1})) // the reader learns why not
			w.asking.Store(false)
		})
	}
}
