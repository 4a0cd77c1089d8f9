package fleet

import "github.com/gangline/gangline/scheduler/cluster"

// scratch is memory that one answer leaves to the next.
type scratch struct {
	key     []uint64
	barred  set
	caps    []int32
	order   []uint64
	members []int32
	rest    []int32
	pools   []*pool
	supply  supply
	plans   [2]plan
	parts   []Part
	taken   []int32
}

// pick is some GPUs of one node.
type pick struct{ pos, k int32 }

// plan is a way to place a gang.
type plan struct {
	picks []pick
	left  int64   // room that stays on the picked nodes
	score float64 // of a plan on one node, if there is a score
}

func (p *plan) add(pos, k, room int32) {
	p.picks = append(p.picks, pick{pos, k})
	p.left += int64(room - k)
}

// better compares two ways to place one gang: fewer nodes, then the lower score
// if it is one, then less left over, or byID the first node by id if it is one.
func (p *plan) better(q *plan, byID bool) bool {
	if len(p.picks) != len(q.picks) {
		return len(p.picks) < len(q.picks)
	}
	if p.score != q.score {
		return p.score < q.score
	}
	if byID && len(p.picks) == 1 {
		return p.picks[0].pos < q.picks[0].pos
	}
	return p.left < q.left
}

// supply hands out nodes by their room, those of equal room by position. It
// offers all nodes of a view, or those of one domain.
type supply struct {
	v      *view
	barred *set
	left   []int32 // by room: nodes not yet handed out
	at     []int32 // by room: where to go on, a position or a place in list
	list   []int32 // positions by room; nil: all nodes of the view
	roomy  bool    // the rest of a gang too large for one node goes to the emptiest, not to the fullest where it fits
}

// offer makes a supply of all nodes of a view but the barred.
func (f *Fleet) offer(v *view, barred *set) *supply {
	s := f.start(v, barred)
	s.list = nil
	for k := int32(1); k <= v.pool.width; k++ {
		s.left[k] = v.by[k].without(barred)
	}
	return s
}

// offerSome makes a supply of some nodes, given in order of position.
func (f *Fleet) offerSome(v *view, members []int32, barred *set) *supply {
	s := f.start(v, barred)
	if cap(f.scratch.members) < len(members) {
		f.scratch.members = make([]int32, len(members))
	}
	s.list = f.scratch.members[:len(members)]
	for _, pos := range members {
		if k := v.room[pos]; k > 0 && (barred == nil || !barred.has(pos)) {
			s.left[k]++
		}
	}
	for k := int32(1); k < v.pool.width; k++ {
		s.at[k+1] = s.at[k] + s.left[k]
	}
	for _, pos := range members {
		if k := v.room[pos]; k > 0 && (barred == nil || !barred.has(pos)) {
			s.list[s.at[k]] = pos
			s.at[k]++
		}
	}
	for k := int32(1); k <= v.pool.width; k++ {
		s.at[k] -= s.left[k]
	}
	return s
}

func (f *Fleet) start(v *view, barred *set) *supply {
	s := &f.scratch.supply
	s.roomy = f.score == cluster.ScoreConsolidated
	n := int(v.pool.width) + 1
	if cap(s.left) < n {
		s.left, s.at = make([]int32, n), make([]int32, n)
	}
	s.v, s.barred, s.left, s.at = v, barred, s.left[:n], s.at[:n]
	clear(s.left)
	clear(s.at)
	return s
}

// pop hands out the next node with room k. There must be one.
func (s *supply) pop(k int32) int32 {
	s.left[k]--
	if s.list != nil {
		s.at[k]++
		return s.list[s.at[k]-1]
	}
	pos := s.v.by[k].next(s.at[k], nil, s.barred)
	s.at[k] = pos + 1
	return pos
}

// total is how many GPUs a gang could have of the supply. By the score
// consolidated these are the wholly free nodes' and those of one node more.
func (s *supply) total(sh *Shape) (n int64) {
	if s.roomy && sh.PerNode == 0 && sh.level == anywhere {
		k := len(s.left) - 1
		n = int64(s.left[k]) * int64(k)
		for k--; k > 0; k-- {
			if s.left[k] > 0 {
				return n + int64(k)
			}
		}
		return n
	}
	for k := max(sh.PerNode, 1); int(k) < len(s.left); k++ {
		n += int64(s.left[k]) * int64(sh.gives(k))
	}
	return n
}

// top is the most room that a node of the supply has.
func (s *supply) top() int32 {
	k := int32(len(s.left)) - 1
	for k > 0 && s.left[k] == 0 {
		k--
	}
	return k
}

// pack takes nodes for a gang from a supply that has enough: the roomiest, until
// one suffices for what is left of the gang, and then the one with the least
// room that does. A gang with a shape takes those with the least room first.
// Whole nodes stay whole so for large gangs. By the score consolidated what is
// left of a gang that is on a node already goes to the roomiest.
func (s *supply) pack(sh *Shape, size int32, p *plan) {
	if sh.PerNode > 0 {
		for k := sh.PerNode; size > 0; k++ {
			for ; s.left[k] > 0 && size > 0; size -= sh.PerNode {
				p.add(s.pop(k), sh.PerNode, k)
			}
		}
		return
	}
	for {
		k := s.top()
		if size <= k {
			if !s.roomy || len(p.picks) == 0 {
				for k = size; s.left[k] == 0; {
					k++
				}
			}
			p.add(s.pop(k), size, k)
			return
		}
		for ; s.left[k] > 0 && size > k; size -= k {
			p.add(s.pop(k), k, k)
		}
		if size == 0 {
			return
		}
	}
}
