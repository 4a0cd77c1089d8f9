package cluster

import (
	"hash/maphash"
	"slices"
	"strings"
)

// Request remembers which job a client's request id made.
type Request struct {
	ID  string
	Job JobID
	At  Time
	Seq uint64
}

// requestIndex finds requests by their ids: a hash table in one piece, of which a
// place is at most a step or two from where it is looked for. The built-in map takes
// three times as long: every submission asks for one id, adds it and drops another.
type requestIndex struct {
	seed  maphash.Seed  // of its own, so that nobody can choose ids of one hash
	slots []requestSlot // a power of two, at most three of four taken
	count int
}

// requestSlot is a request and the hash of its id, or nothing.
type requestSlot struct {
	hash    uint64
	request *Request
}

// find returns the slot of an id of such a hash, or the empty one where it would be.
func (x *requestIndex) find(id string, hash uint64) int {
	last := uint64(len(x.slots) - 1)
	i := hash & last
	for s := &x.slots[i]; s.request != nil && (s.hash != hash || s.request.ID != id); s = &x.slots[i] {
		i = (i + 1) & last
	}
	return int(i) //nolint:gosec // below the number of slots
}

// get returns a request, or nil.
func (x *requestIndex) get(id string) *Request {
	return x.slots[x.find(id, maphash.String(x.seed, id))].request
}

// set adds a request, in place of one with the same id.
func (x *requestIndex) set(r *Request) {
	if 4*(x.count+1) > 3*len(x.slots) {
		x.grow()
	}
	hash := maphash.String(x.seed, r.ID)
	s := &x.slots[x.find(r.ID, hash)]
	if s.request == nil {
		x.count++
	}
	*s = requestSlot{hash, r}
}

// grow doubles the slots.
func (x *requestIndex) grow() {
	was := x.slots
	x.slots = make([]requestSlot, 2*len(was))
	for _, s := range was {
		if s.request != nil {
			x.slots[x.find(s.request.ID, s.hash)] = s
		}
	}
}

// drop forgets a request, which must be there. Those that stand behind it for want
// of room come forward.
func (x *requestIndex) drop(id string) {
	last := len(x.slots) - 1
	free := x.find(id, maphash.String(x.seed, id))
	for i := (free + 1) & last; x.slots[i].request != nil; i = (i + 1) & last {
		if home := int(x.slots[i].hash & uint64(last)); (i-home)&last >= (i-free)&last { //nolint:gosec // below the number of slots
			x.slots[free] = x.slots[i]
			free = i
		}
	}
	x.slots[free] = requestSlot{}
	x.count--
}

// indexRequests finds the requests by their ids from now on.
func (s *State) indexRequests() {
	s.byRequest = &requestIndex{seed: maphash.MakeSeed(), slots: make([]requestSlot, 64)}
	s.requests.scan(func(r *Request) bool {
		s.byRequest.set(r)
		return true
	})
}

// Request returns what is remembered of a request id, or nil. In a snapshot they
// are all gone through for it: only who submits asks often.
func (s *State) Request(id string) (found *Request) {
	if s.byRequest != nil {
		return s.byRequest.get(id)
	}
	s.requests.scan(func(r *Request) bool {
		if r.ID == id {
			found = r
		}
		return found == nil
	})
	return found
}

// putRequest remembers a new request. Many are made at once: they are forgotten in
// the order in which they came.
func (s *State) putRequest(add Request) {
	if s.byRequest == nil {
		s.indexRequests()
	}
	if len(s.requestRoom) == 0 {
		s.requestRoom = make([]Request, 64)
	}
	r := &s.requestRoom[0]
	s.requestRoom = s.requestRoom[1:]
	*r = add
	s.byRequest.set(r)
	s.requests.set(s.mine(), r.Seq, r, false)
}

// expireRequests drops request ids that are out of the window or over the bound.
func (s *State) expireRequests() {
	for {
		r := s.requests.first()
		if r == nil || (s.now.Sub(r.At) < RequestWindow && s.requests.count < MaxRequests) {
			return
		}
		if s.byRequest != nil {
			s.byRequest.drop(r.ID)
		}
		s.requests.drop(s.mine(), r.Seq)
	}
}

// forgetRequests forgets all of them.
func (s *State) forgetRequests() { s.requests, s.byRequest = table[Request]{}, nil }

// requestsByID lists what is remembered, in the order of the ids.
func (s *State) requestsByID() []*Request {
	all := make([]*Request, 0, s.requests.count)
	s.requests.scan(func(r *Request) bool {
		all = append(all, r)
		return true
	})
	slices.SortFunc(all, func(a, b *Request) int { return strings.Compare(a.ID, b.ID) })
	return all
}
