package allreduce

// Leave is the first half of Close: this rank leaves the ring in good order, and every later call returns ErrClosed. Memory of Alloc stays
// until Close, which must still follow. It does not wait.
func (g *Group) Leave() { g.end(ErrClosed, Header{Kind: KindLeave, Rank: g.cfg.Rank}) }

// hasEnded says whether to wait in shared memory no longer. A neighbour that left can still be needed; one that had reached this phase before is
// not, and that is looked at after its word that it left, which came later. Other ranks learn it from its neighbours.
func (g *Group) hasEnded() bool {
	if isClosed(g.ended) {
		return true
	}
	for _, e := range g.edges() {
		if isClosed(e.left) && g.team.Missing(e.peer) {
			g.fail(e.peer, ErrLeft)
			return true
		}
	}
	return false
}
