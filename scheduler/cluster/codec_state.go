package cluster

import (
	"fmt"
	"hash/fnv"
)

// chunkBytes is about how much Encode hands to its caller at once.
const chunkBytes = 64 << 10

// Encode hands the state's bytes to write, in pieces that are valid only
// during the call. Equal states give equal bytes. Any goroutine may encode a
// snapshot. It stops at the first error of write and returns it.
func (s *State) Encode(write func([]byte) error) error {
	c := coder{version: Version}
	s.codeHeader(&c)
	flush := func(limit int) error {
		if len(c.buf) < limit {
			return nil
		}
		err := write(c.buf)
		c.buf = c.buf[:0]
		return err
	}
	var err error
	s.jobs.scan(func(j *Job) bool {
		j.code(&c)
		err = flush(chunkBytes)
		return err == nil
	})
	if err != nil {
		return err
	}
	s.nodes.Scan(func(_ NodeID, n *Node) bool {
		n.code(&c)
		err = flush(chunkBytes)
		return err == nil
	})
	if err != nil {
		return err
	}
	for _, r := range s.requestsByID() {
		r.code(&c)
		if err = flush(chunkBytes); err != nil {
			return err
		}
	}
	s.accounts.Scan(func(_ string, a *Account) bool {
		a.code(&c)
		err = flush(chunkBytes)
		return err == nil
	})
	if err != nil {
		return err
	}
	s.histories.Scan(func(key string, h *History) bool {
		c.str(&key)
		h.code(&c)
		err = flush(chunkBytes)
		return err == nil
	})
	if err != nil {
		return err
	}
	return flush(1)
}

// sizes are the numbers of objects that follow the header.
type sizes struct{ jobs, nodes, requests, accounts, histories uint64 }

// codeHeader codes what is not an object, and how many objects follow.
func (s *State) codeHeader(c *coder) sizes {
	codeUint(c, &s.version)
	c.str(&s.clusterID)
	c.u64(&s.index)
	codeInt(c, &s.now)
	codeUint(c, &s.nextJob)
	c.u64(&s.finishSeq)
	c.u64(&s.reqSeq)
	n := sizes{uint64(s.jobs.count), uint64(s.nodes.Len()), uint64(s.requests.count), uint64(s.accounts.Len()), uint64(s.histories.Len())}
	c.u64(&n.jobs)
	c.u64(&n.nodes)
	c.u64(&n.requests)
	if c.version < 2 {
		return n
	}
	c.u64(&n.accounts)
	c.u64(&n.histories)
	codeList(c, &s.moves, func(c *coder, t *Time) { codeInt(c, t) })
	codePolicyPtr(c, &s.policy)
	c.u64(&s.policyAt)
	if c.version >= 3 {
		s.codeArrays(c)
	}
	if c.version >= 5 {
		s.experience.code(c)
	}
	return n
}

// codeArrays codes what of the arrays cannot be derived from the jobs: how many
// forgotten members ended otherwise than by success.
func (s *State) codeArrays(c *coder) {
	type lost struct {
		array JobID
		bad   int32
	}
	var all []lost
	if !c.reading {
		s.arrays.Scan(func(id JobID, t tally) bool {
			if t.gone > 0 {
				all = append(all, lost{id, t.gone})
			}
			return true
		})
	}
	codeList(c, &all, func(c *coder, l *lost) {
		codeUint(c, &l.array)
		c.i32(&l.bad)
	})
	if c.reading {
		for _, l := range all {
			s.arrays.Set(l.array, tally{bad: l.bad, gone: l.bad})
		}
	}
}

// Decode reads a state that Encode wrote with the given encoding version.
// It returns ErrCorrupt if the bytes are not whole.
func Decode(b []byte, version uint32) (*State, error) {
	if version > Version {
		return nil, fmt.Errorf("the snapshot is in encoding %d, this release knows up to %d: run the release that the other servers run", version, Version)
	}
	c := coder{buf: b, reading: true, version: version}
	s := &State{}
	n := s.codeHeader(&c)
	if c.err == nil {
		s.places = s.Policy().placed()
	}
	for i := uint64(0); i < n.jobs && c.err == nil; i++ {
		j := &Job{}
		j.code(&c)
		if c.err == nil && (j.State < Pending || j.State > Cancelled) {
			c.fail("job %d has state %d", j.ID, j.State)
		}
		if c.err == nil {
			s.putJob(j)
		}
	}
	for i := uint64(0); i < n.nodes && c.err == nil; i++ {
		node := &Node{}
		node.code(&c)
		s.place(node)
		s.putNode(node)
	}
	for i := uint64(0); i < n.requests && c.err == nil; i++ {
		r := &Request{}
		r.code(&c)
		s.putRequest(*r)
	}
	for i := uint64(0); i < n.accounts && c.err == nil; i++ {
		a := &Account{}
		a.code(&c)
		s.accounts.Set(accountKey(a.Queue, a.User), a)
	}
	for i := uint64(0); i < n.histories && c.err == nil; i++ {
		key, h := "", &History{}
		c.str(&key)
		h.code(&c)
		s.histories.Set(key, h)
	}
	if c.err == nil && len(c.buf) > 0 {
		c.fail("%d bytes after the state", len(c.buf))
	}
	if c.err != nil {
		return nil, c.err
	}
	s.journal = journal{origin: new(byte)} // who follows this state begins with all of it
	return s, nil
}

// Hash is a 64-bit FNV-1a hash of the state's bytes: servers with the same
// index must have the same hash. It costs time in proportion to the state;
// call it on a snapshot, off the path of Apply.
func (s *State) Hash() uint64 {
	h := fnv.New64a()
	// Writing to a hash never fails.
	_ = s.Encode(func(b []byte) error { _, err := h.Write(b); return err })
	return h.Sum64()
}
