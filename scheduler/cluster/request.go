package cluster

import (
	"math/bits"
	"slices"
	"strings"
)

// Request remembers which job a client's request id made.
type Request struct {
	ID  string
	Job JobID
	At  Time
	Seq uint64

	hash uint64 // of the ID, once it is in a trie
}

// requestTrie finds requests by their ids: a hash array mapped trie (P. Bagwell,
// Ideal Hash Trees, 2001). Like a table it copies on write: a copy of the struct
// is a snapshot as soon as both go on with other owners. Two or three loads find
// a request, where a search tree compares a dozen strings, each somewhere else.
type requestTrie struct {
	count int
	top   *requestNode
}

type requestNode struct {
	by    *owner
	has   uint64        // a bit for each of 64 ways on
	slots []requestSlot // one for each of those
}

// requestSlot is a request, or a node with those whose ids go the same way so far.
type requestSlot struct {
	request *Request
	under   *requestNode
}

// requestPath is the way to a request: 6 bits of the id's hash for each node.
type requestPath struct {
	id   string
	hash uint64
	left int    // bits of hash
	seed uint64 // of the next hash: ids that have the same one part at the next
}

// path is the way to a request that is in a trie.
func (r *Request) path() requestPath { return requestPath{id: r.ID, hash: r.hash, left: 64, seed: 1} }

// next returns the bit of the way on from the next node.
func (p *requestPath) next() uint64 {
	if p.left < 6 {
		p.hash, p.left = hashID(p.id, p.seed), 64
		p.seed++
	}
	bit := uint64(1) << (p.hash % 64)
	p.hash, p.left = p.hash>>6, p.left-6
	return bit
}

// hashID is the 64-bit FNV-1a hash of an id, with a seed other than 0 another one.
func hashID(id string, seed uint64) uint64 {
	h := 14695981039346656037 ^ seed
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	return h
}

// at is where the slot of a way on is, or would be.
func (n *requestNode) at(bit uint64) int { return bits.OnesCount64(n.has & (bit - 1)) }

// get returns a request, or nil.
func (t *requestTrie) get(id string) *Request {
	p := requestPath{id: id}
	for n := t.top; n != nil; {
		bit := p.next()
		if n.has&bit == 0 {
			return nil
		}
		s := &n.slots[n.at(bit)]
		if s.request != nil {
			if s.request.ID == id {
				return s.request
			}
			return nil
		}
		n = s.under
	}
	return nil
}

// set stores a request that no other trie has.
func (t *requestTrie) set(own *owner, r *Request) {
	r.hash = hashID(r.ID, 0)
	p := r.path()
	for at, depth := &t.top, 1; ; depth++ {
		n := (*at).owned(own)
		*at = n
		bit := p.next()
		i := n.at(bit)
		if n.has&bit == 0 {
			n.has |= bit
			n.slots = append(n.slots, requestSlot{})
			copy(n.slots[i+1:], n.slots[i:])
			n.slots[i] = requestSlot{request: r}
			t.count++
			return
		}
		s := &n.slots[i]
		if was := s.request; was != nil {
			if was.ID == r.ID {
				s.request = r
				return
			}
			s.request, s.under = nil, was.alone(own, depth)
		}
		at = &s.under
	}
}

// alone returns a node so far down that has one request.
func (r *Request) alone(own *owner, depth int) *requestNode {
	p := r.path()
	for range depth {
		p.next()
	}
	return &requestNode{by: own, has: p.next(), slots: []requestSlot{{request: r}}}
}

// owned returns a node that the owner may write to, for one or for none.
func (n *requestNode) owned(own *owner) *requestNode {
	switch {
	case n == nil:
		return &requestNode{by: own}
	case n.by == own:
		return n
	default:
		slots := append(make([]requestSlot, 0, len(n.slots)+1), n.slots...) // one may come
		return &requestNode{by: own, has: n.has, slots: slots}
	}
}

// drop forgets a request, which must be there.
func (t *requestTrie) drop(own *owner, r *Request) {
	p := r.path()
	t.top = t.top.without(own, &p)
	t.count--
}

// without returns a node less the request to which a path goes on; nil: there is no other.
func (n *requestNode) without(own *owner, p *requestPath) *requestNode {
	n = n.owned(own)
	bit := p.next()
	i := n.at(bit)
	if s := &n.slots[i]; s.under != nil {
		if s.under = s.under.without(own, p); s.under != nil {
			return n
		}
	}
	last := i + copy(n.slots[i:], n.slots[i+1:])
	n.slots[last] = requestSlot{}
	n.slots = n.slots[:last]
	if n.has &^= bit; n.has == 0 {
		return nil
	}
	return n
}

// Request returns what is remembered of a request id, or nil.
func (s *State) Request(id string) *Request { return s.requests.get(id) }

// putRequest remembers a new request. Many are made at once: they are forgotten in
// the order in which they came.
func (s *State) putRequest(add Request) {
	if len(s.requestRoom) == 0 {
		s.requestRoom = make([]Request, 64)
	}
	r := &s.requestRoom[0]
	s.requestRoom = s.requestRoom[1:]
	*r = add
	own := s.mine()
	s.requests.set(own, r)
	s.reqOrder.set(own, r.Seq, r, false)
}

// expireRequests drops request ids that are out of the window or over the bound.
func (s *State) expireRequests() {
	for {
		r := s.reqOrder.first()
		if r == nil || (s.now.Sub(r.At) < RequestWindow && s.requests.count < MaxRequests) {
			return
		}
		own := s.mine()
		s.requests.drop(own, r)
		s.reqOrder.drop(own, r.Seq)
	}
}

// requestsByID lists what is remembered, in the order of the ids.
func (s *State) requestsByID() []*Request {
	all := make([]*Request, 0, s.requests.count)
	s.reqOrder.scan(func(r *Request) bool {
		all = append(all, r)
		return true
	})
	slices.SortFunc(all, func(a, b *Request) int { return strings.Compare(a.ID, b.ID) })
	return all
}
