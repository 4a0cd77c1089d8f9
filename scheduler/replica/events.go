package replica

import (
	"context"
	"sort"
	"sync"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Event is one object that one command replaced, made or dropped. Exactly one
// of Job, Node, DeletedJob and DeletedNode is set. Objects are shared: read only.
type Event struct {
	Index       uint64 // log index; the events of one entry share it
	Job         *cluster.Job
	Node        *cluster.Node
	DeletedJob  cluster.JobID
	DeletedNode cluster.NodeID
}

// eventOf looks a change up in the state right after its command.
func eventOf(s *cluster.State, index uint64, c cluster.Change) Event {
	e := Event{Index: index}
	if c.Job != 0 {
		if e.Job = s.Job(c.Job); e.Job == nil {
			e.DeletedJob = c.Job
		}
		return e
	}
	if e.Node = s.Node(c.Node); e.Node == nil {
		e.DeletedNode = c.Node
	}
	return e
}

// ring keeps the newest events. The FSM writes; anyone reads.
type ring struct {
	mu    sync.Mutex
	buf   []Event // event number n is at n % len(buf)
	first uint64  // number of the oldest event kept
	next  uint64  // number of the event to come
	floor uint64  // smallest index of which, and of all later ones, no event is missing
}

func newRing(size int) *ring { return &ring{buf: make([]Event, size), floor: 1} }

// add appends events in the order of their indices.
func (r *ring) add(events []Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := uint64(len(r.buf))
	for _, e := range events {
		if r.next-r.first == size {
			r.floor = r.buf[r.first%size].Index + 1
			r.first++
		}
		r.buf[r.next%size] = e
		r.next++
	}
}

// reset forgets all: the state jumped to the given index by a snapshot.
func (r *ring) reset(index uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.buf)
	r.first, r.next, r.floor = 0, 0, index+1
}

// since returns events from the given index on: whole indices, about
// maxEventsPerCall in all.
func (r *ring) since(from uint64) ([]Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from < r.floor {
		return nil, &EventsGoneError{From: from, Oldest: r.floor}
	}
	size, n := uint64(len(r.buf)), int(r.next-r.first)
	at := func(i int) *Event { return &r.buf[(r.first+uint64(i))%size] }
	begin := sort.Search(n, func(i int) bool { return at(i).Index >= from })
	end := min(n, begin+maxEventsPerCall)
	for end > begin && end < n && at(end).Index == at(end-1).Index {
		end++
	}
	out := make([]Event, 0, end-begin)
	for i := begin; i < end; i++ {
		out = append(out, *at(i))
	}
	return out, nil
}

// Events returns the events of index from and later, in order, and the index to
// ask for next. It waits until there is at least one. Begin with the index of a
// listed state plus one. Errors: *EventsGoneError if from is too old (list
// again), the context's error, ErrClosed or the failure of the replica. Safe
// for concurrent use.
func (r *Replica) Events(ctx context.Context, from uint64) (events []Event, next uint64, err error) {
	for {
		updated := r.Updated()
		events, err = r.fsm.events.since(from)
		if err != nil {
			return nil, from, err
		}
		if len(events) > 0 {
			return events, events[len(events)-1].Index + 1, nil
		}
		if err := r.waitFor(ctx, updated); err != nil {
			return nil, from, err
		}
	}
}

// EventsSince is Events without the wait: it may return none. Safe for
// concurrent use.
func (r *Replica) EventsSince(from uint64) ([]Event, error) { return r.fsm.events.since(from) }
