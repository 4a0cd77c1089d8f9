package allreduce

// Leave is the first half of Close: this rank leaves the ring in good order, and every later call returns ErrClosed. Memory of Alloc stays
// until Close, which must still follow. It does not wait.
func (g *Group) Leave() { g.end(ErrClosed, Header{Kind: KindLeave, Rank: g.cfg.Rank}) }
