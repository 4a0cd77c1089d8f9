package allreduce

import (
	"maps"
	"slices"
	"time"
)

// Leave is the first half of Close: this rank leaves the ring in good order, and every later call returns ErrClosed. Memory of Alloc stays
// until Close, which must still follow. It waits for what Close waits for first: that others have taken what was sent to them, at most about a second.
func (g *Group) Leave() {
	g.settleWires()
	g.end(ErrClosed, Header{Kind: KindLeave, Rank: g.cfg.Rank, Sequence: g.finished.Load()})
}

// hasEnded says whether to wait in shared memory no longer. A neighbour that left can still be needed; one that had reached this phase before is
// not, and that is looked at after its word that it left, which came later. Other ranks learn it from its neighbours.
func (g *Group) hasEnded() bool {
	if isClosed(g.ended) {
		return true
	}
	for _, e := range g.edges() {
		member := e.peer
		if g.apart { // a neighbour on another machine is missed there, and its loss told by the ring
			if member = slices.Index(g.nodes.mine, e.peer); member < 0 {
				continue
			}
		}
		if isClosed(e.left) && g.team.Missing(member) {
			g.failLeft(e)
			return true
		}
	}
	return false
}

// settleWires waits, before this rank leaves, until the other ends of its wires have taken something, which they then say: a wire that is closed
// before it was accepted takes its frames along.
func (g *Group) settleWires() {
	g.mesh.mu.Lock()
	wires := slices.Collect(maps.Values(g.mesh.to))
	g.mesh.mu.Unlock()
	patience := time.NewTimer(g.linger())
	defer patience.Stop()
	for _, w := range wires {
		for w.acked.Load() == 0 {
			select {
			case <-w.credit:
				continue
			case <-w.left:
			case <-g.ended:
				return
			case <-patience.C:
				return
			}
			break
		}
	}
}
