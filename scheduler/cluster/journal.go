package cluster

import "slices"

// journal remembers which objects changed lately, so that who keeps an index
// of the state can follow it at the cost of what changed. It is derived: never
// encoded, and empty after Decode.
type journal struct {
	origin  *byte    // tells a state and its snapshots from any other state
	first   uint64   // sequence number of changes[0]
	changes []Change // appended by the owner; a snapshot's part is never overwritten
	shared  bool     // a snapshot may have a part of changes
}

// maxJournal bounds what is remembered. Who is further behind reads all anew.
const maxJournal = 1 << 15

// touch notes a change.
func (s *State) touch(c Change) {
	j := &s.journal
	if len(j.changes) == cap(j.changes) {
		j.grow()
	}
	j.changes = append(j.changes, c)
}

// grow makes room for one more change, and forgets the oldest ones in time.
func (j *journal) grow() {
	if j.origin == nil {
		j.origin = new(byte)
	}
	if len(j.changes) >= 2*maxJournal {
		drop := len(j.changes) - maxJournal
		kept := j.changes[:maxJournal]
		if j.shared {
			kept = make([]Change, maxJournal, 2*maxJournal)
		}
		copy(kept, j.changes[drop:])
		j.first, j.changes, j.shared = j.first+uint64(drop), kept, false
		return
	}
	n := len(j.changes)
	more := slices.Grow(j.changes, max(n, 64)) // append alone would move it three times as often
	j.changes = more[:n:min(cap(more), 2*maxJournal)]
}

// fork returns the journal for a snapshot: what is appended to either is not
// seen by the other.
func (j *journal) fork() journal {
	n := len(j.changes)
	j.shared = true
	return journal{origin: j.origin, first: j.first, changes: j.changes[:n:n], shared: true}
}

// Cursor is a place in a state's journal. The zero Cursor is before every state.
type Cursor struct {
	origin *byte
	seq    uint64
}

// Cursor returns the place after the last change.
func (s *State) Cursor() Cursor {
	return Cursor{origin: s.journal.origin, seq: s.journal.first + uint64(len(s.journal.changes))}
}

// ChangesSince returns what changed after a place, in order, an object as often
// as it changed. It is false if that is not known: the place is too long ago,
// or of another state. A snapshot to which Apply was called goes its own way:
// who follows it must not go back to the original. The result is not to be
// edited, and valid until the next Apply.
func (s *State) ChangesSince(c Cursor) ([]Change, bool) {
	j := &s.journal
	if c.origin == nil || c.origin != j.origin || c.seq < j.first || c.seq > j.first+uint64(len(j.changes)) {
		return nil, false
	}
	return j.changes[c.seq-j.first:], true
}

// changeRoom is the memory of the lists of what a command changes, until the next
// command.
type changeRoom struct {
	list []Change
	used int
}

// room returns an empty list with room for so many.
func (r *changeRoom) room(n int) []Change {
	if len(r.list)-r.used < n {
		*r = changeRoom{list: make([]Change, max(2*n, 64))}
	}
	from := r.used
	r.used += n
	return r.list[from:from:r.used]
}
