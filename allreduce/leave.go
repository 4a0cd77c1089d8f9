package allreduce

import "slices"

// Leave is the first half of Close: this rank leaves the ring in good order, and every later call returns ErrClosed. Memory of Alloc stays
// until Close, which must still follow. It does not wait.
func (g *Group) Leave() {
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
