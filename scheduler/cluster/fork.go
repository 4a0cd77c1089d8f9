package cluster

// Fork returns a state of its own that goes on from here, for who asks "what
// if": what is applied to it changes nothing in s. Any goroutine may fork a
// snapshot, also while others read it. An index of s cannot follow the fork.
//
// It remembers no request ids: nobody submits again what was never submitted. Only
// the given jobs wait in the fork, of those that are Pending in s; nil:
// all of them. The others still exist there, but nobody plans for them, and
// Check does not hold.
func (s *State) Fork(waiting []JobID) *State {
	c := *s // shares the trees and writes to nothing of s; Snapshot then gives the fork trees of its own
	f := c.Snapshot()
	f.forgetRequests()
	f.journal = journal{origin: new(byte)}
	if waiting == nil {
		return f
	}
	f.pending = jobSet{}
	for _, id := range waiting {
		if j := s.Job(id); j != nil && j.State == Pending {
			f.pending.add(f.mine(), id)
		}
	}
	f.counts[Pending] = f.pending.count
	return f
}

// Still makes a fork cheaper to go on with: the jobs that hold GPUs keep the
// place in the order that they have, whatever they are given from here on. Not
// to be called but on a Fork.
func (s *State) Still() { s.still = true }
