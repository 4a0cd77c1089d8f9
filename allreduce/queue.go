package allreduce

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gangline/gangline/allreduce/internal/point"
)

// MaxInFlight is how many calls can be started and not yet done on one group: it bounds the caller's memory that is in use, and is
// more than a training step has buckets.
const MaxInFlight = 256

// ErrTag is returned for a call whose tag cannot be: it was started before, or is more than MaxInFlight ahead of one that was not
// started. It does not break the group.
var ErrTag = errors.New("tags are 0, 1, 2 and so on, each started once on every rank, in any order, at most 256 ahead of the first that was not started")

// Handle is a call that was started.
type Handle struct {
	asked
	group *Group
	tag   uint64
	after func() // run before it counts as done, if it ended well
	done  chan struct{}
	err   error // set before done is closed
}

// Tag returns the call's place in the order of calls.
func (h *Handle) Tag() uint64 { return h.tag }

// Done is closed when the call has ended.
func (h *Handle) Done() <-chan struct{} { return h.done }

// Test says whether the call has ended, and how. It never waits.
func (h *Handle) Test() (done bool, err error) {
	select {
	case <-h.done:
		return true, h.err
	default:
		return false, nil
	}
}

// Wait returns the call's error once it has ended, or ctx's before that: the call then goes on, and its vector must not be touched
// until it has ended. Errors of the call are those of [Group.AllReduce]. Any number of goroutines may wait.
func (h *Handle) Wait(ctx context.Context) error {
	select {
	case <-h.done: // also if ctx has ended
		return h.err
	default:
	}
	select {
	case <-h.done:
		return h.err
	case <-ctx.Done():
		return fmt.Errorf("all-reduce of job %d epoch %d: waiting for tag %d: %w", h.group.cfg.Job, h.group.cfg.Epoch, h.tag, context.Cause(ctx))
	}
}

// StartAllReduce begins an AllReduce and returns at once; v must not be touched until the handle is done. Many can be in flight, and
// run one after the other in the order of their tags, 0, 1, 2 and so on, whatever order each rank starts them in: so all ranks agree.
// Every rank starts every tag once. It waits while MaxInFlight calls are in flight.
//
// A call that waits, such as Barrier, runs after all that were started before it on this rank. Until it returns nothing can be started
// (ErrBusy), and it is refused with ErrTag if a tag before one that was started is missing.
//
// It is safe for concurrent use. Errors are ErrTag, ErrBusy, the group's, and a vector or operation that is none; the call's own error
// comes from the handle.
func (g *Group) StartAllReduce(tag uint64, v Vector, op Op) (*Handle, error) {
	return g.begin(&Handle{tag: tag, asked: asked{kind: KindData, call: callAllReduce, vector: v, op: op, mark: markOf(tag)}})
}

// NextTag returns the tag after the largest that was started or returned before, for callers who start in the same order on all
// ranks. It is safe for concurrent use.
func (g *Group) NextTag() uint64 {
	g.queue.mu.Lock()
	defer g.queue.mu.Unlock()
	g.queue.free++
	return g.queue.free - 1
}

// A mark tells in the frames of a call which one it is: 0 for one that waits, the tag plus one, or the sum of a bundle's parts with
// this bit set.
const bundleMark = 1 << 63

func markOf(tag uint64) uint64 { return (tag + 1) &^ bundleMark }

func markText(mark uint64) string {
	switch {
	case mark == 0:
		return ""
	case mark&bundleMark != 0:
		return fmt.Sprintf(", bundle %x", mark&^bundleMark)
	default:
		return fmt.Sprintf(", tag %d", mark-1)
	}
}

// queue is the calls that were started and are not done. The group's serve runs them.
type queue struct {
	mu      sync.Mutex // guards what follows
	changed sync.Cond  // a call is done or was started, or the group has ended
	slots   [MaxInFlight]*Handle
	next    uint64 // the tag that runs, or will run next
	count   int    // calls in flight
	free    uint64 // after the largest tag
	waiting bool   // a call that waits is under way
	ended   bool
}

func (q *queue) open() { q.changed.L = &q.mu }

// wakeAll tells all who wait that the group has ended.
func (q *queue) wakeAll() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.changed.Broadcast()
}

// enter begins a call that waits.
func (q *queue) enter() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting {
		return ErrBusy
	}
	q.waiting = true
	return nil
}

func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = false
}

// drain waits until nothing is in flight, or the group has ended.
func (q *queue) drain(ended <-chan struct{}) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.count > 0 && !isClosed(ended) {
		if q.slots[q.next%MaxInFlight] == nil {
			return fmt.Errorf("tag %d was not started, later ones were: %w", q.next, ErrTag)
		}
		q.changed.Wait()
	}
	return nil
}

// begin puts a call into the queue.
func (g *Group) begin(h *Handle) (*Handle, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	var err error
	if h.wire, err = g.form(&h.asked); err != nil {
		return nil, err
	}
	h.group, h.done = g, make(chan struct{})
	q := &g.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		switch {
		case isClosed(g.ended):
			return nil, g.err
		case q.waiting:
			return nil, ErrBusy
		case h.tag < q.next || h.tag < q.next+MaxInFlight && q.slots[h.tag%MaxInFlight] != nil:
			return nil, fmt.Errorf("tag %d was started before: %w", h.tag, ErrTag)
		case h.tag < q.next+MaxInFlight:
			q.slots[h.tag%MaxInFlight] = h
			q.count++
			q.free = max(q.free, h.tag+1)
			q.changed.Broadcast()
			return h, nil
		case q.slots[q.next%MaxInFlight] == nil:
			return nil, fmt.Errorf("tag %d is too far ahead of tag %d, which was not started: %w", h.tag, q.next, ErrTag)
		}
		q.changed.Wait()
	}
}

// serve runs the calls that were started, in order, until the group ends.
func (g *Group) serve() {
	for h := g.queue.first(); h != nil; h = g.queue.first() {
		g.at(point.QueueServes)
		h.err = g.perform(h.asked)
		if h.err == nil && h.after != nil {
			h.after()
		}
		g.queue.finish(h)
	}
	for _, h := range g.queue.rest() {
		h.err = g.err
		close(h.done)
	}
}

// first waits for the call that comes next, or returns nil when the group has ended.
func (q *queue) first() *Handle {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.ended {
		if h := q.slots[q.next%MaxInFlight]; h != nil {
			return h
		}
		q.changed.Wait()
	}
	return nil
}

// finish takes the call that is done out of the queue.
func (q *queue) finish(h *Handle) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.slots[q.next%MaxInFlight] = nil
	q.next++
	q.count--
	close(h.done)
	q.changed.Broadcast()
}

// rest empties the queue of a group that has ended.
func (q *queue) rest() []*Handle {
	q.mu.Lock()
	defer q.mu.Unlock()
	var left []*Handle
	for i, h := range q.slots {
		if h != nil {
			left = append(left, h)
			q.slots[i] = nil
		}
	}
	q.count = 0
	q.changed.Broadcast()
	return left
}
