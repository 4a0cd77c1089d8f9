package session

import (
	"context"
	"runtime"
	"sync"
	"unsafe"

	"github.com/gangline/gangline/allreduce"
)

// Group is a group that a process has joined. Its methods may be called concurrently; calls on it are made in the order in which they
// were begun.
type Group struct {
	ring      *allreduce.Group
	formation int   // which set of ranks of the epoch this is, from 1; 0: not told
	members   []int // the ranks of its places in the job; nil: not told

	lane   lane
	ctx    context.Context //nolint:containedctx // the life of the calls that were started
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	given  map[unsafe.Pointer]*given // memory of Alloc that was not freed
}

// given is memory that a caller has.
type given struct {
	data []byte
	pin  runtime.Pinner // ordinary memory must be seen by the collector while only C holds it
}

func newGroup(ring *allreduce.Group, formation int, members []int) *Group {
	g := &Group{ring: ring, formation: formation, members: members, given: map[unsafe.Pointer]*given{}}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// Rank and WorldSize say where this process stands.
func (g *Group) Rank() int { return g.ring.Rank() }

// WorldSize returns the number of ranks.
func (g *Group) WorldSize() int { return g.ring.WorldSize() }

// Formation returns which set of ranks of the epoch this is, from 1, and the ranks in the job of its places: where a gang goes on without lost
// ranks, a place in a later formation is not a worker's rank. It is 0, and nil, where nobody told.
func (g *Group) Formation() (formation int, members []int) { return g.formation, g.members }

// Call is a collective with what it works on.
type Call struct {
	Kind Kind
	Data allreduce.Vector
	Op   allreduce.Op // of AllReduce and ReduceScatter
	Root int          // of Broadcast
}

// Kind is one of the collectives. The numbers are those of gangline.h.
type Kind int32

// The kinds of calls.
const (
	AllReduce Kind = iota + 1
	ReduceScatter
	AllGather
	Broadcast
	Barrier
)

// Run makes a call and returns its result.
func (g *Group) Run(c Call) error {
	if err := g.check(c); err != nil {
		return err
	}
	return g.lane.run(g.ctx, g.making(c))
}

// Start begins a call. What it works on must stay until Wait has returned the result.
func (g *Group) Start(c Call) (*Work, error) {
	if err := g.check(c); err != nil {
		return nil, err
	}
	return g.lane.start(g.ctx, g.making(c)), nil
}

// StartTagged begins an all-reduce whose place in the order of calls is its tag, 0, 1, 2 and so on, in whatever order each rank begins them; see
// allreduce.Group.StartAllReduce. Tagged calls of a group are in an order of their own: other calls run before or after all of them.
func (g *Group) StartTagged(tag uint64, c Call) (*Work, error) {
	if c.Kind != AllReduce {
		return nil, invalid("only all-reduces have tags")
	}
	h, err := g.ring.StartAllReduce(tag, c.Data, c.Op)
	if err != nil {
		return nil, err
	}
	return &Work{ended: h.Done(), result: func() error { _, err := h.Test(); return err }, cancel: g.ring.Leave}, nil
}

// check says why no rank could make a call.
func (g *Group) check(c Call) error {
	if c.Kind < AllReduce || c.Kind > Barrier {
		return invalid("call %d is none", c.Kind)
	}
	if c.Kind == Broadcast && (c.Root < 0 || c.Root >= g.WorldSize()) {
		return invalid("broadcast from rank %d: ranks are 0..%d", c.Root, g.WorldSize()-1)
	}
	return nil
}

// making gives the call as a function.
func (g *Group) making(c Call) func(context.Context) error {
	return func(ctx context.Context) error {
		whole := false
		defer func() {
			if !whole { // a panic: the others must not wait for what this rank will never send
				g.ring.Leave()
			}
		}()
		err := g.make(ctx, c)
		whole = true
		return err
	}
}

// make makes a call.
func (g *Group) make(ctx context.Context, c Call) error {
	switch c.Kind {
	case AllReduce:
		return g.ring.AllReduce(ctx, c.Data, c.Op)
	case ReduceScatter:
		_, _, err := g.ring.ReduceScatter(ctx, c.Data, c.Op)
		return err
	case AllGather:
		return g.ring.AllGather(ctx, c.Data)
	case Broadcast:
		return g.ring.Broadcast(ctx, c.Data, c.Root)
	default:
		return g.ring.Barrier(ctx)
	}
}

// Send gives a vector to another rank, which must call Recv with one of the same length and type. Messages between two ranks arrive in order; they have
// nothing to do with the order of other calls.
func (g *Group) Send(to int, v allreduce.Vector) error {
	if to < 0 || to >= g.WorldSize() || to == g.Rank() {
		return invalid("send to rank %d from rank %d of %d", to, g.Rank(), g.WorldSize())
	}
	return guarded(g.ctx, func(ctx context.Context) error { return g.ring.Send(ctx, v, to) })
}

// Recv takes what another rank sends.
func (g *Group) Recv(from int, v allreduce.Vector) error {
	if from < 0 || from >= g.WorldSize() || from == g.Rank() {
		return invalid("receive from rank %d at rank %d of %d", from, g.Rank(), g.WorldSize())
	}
	return guarded(g.ctx, func(ctx context.Context) error { return g.ring.Recv(ctx, v, from) })
}

// Share gives the elements that are this rank's own in ReduceScatter and AllGather.
func (g *Group) Share(length int) (lo, hi int) {
	return allreduce.Share(length, g.WorldSize(), g.Rank())
}

// Alloc gives zeroed memory for vectors, which all ranks share if they are on one machine. Free it.
func (g *Group) Alloc(bytes int) (unsafe.Pointer, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, allreduce.ErrClosed
	}
	data, err := g.ring.Alloc(max(bytes, 1))
	if err != nil {
		return nil, err
	}
	at := unsafe.Pointer(unsafe.SliceData(data))
	m := &given{data: data}
	m.pin.Pin(at)
	g.given[at] = m
	return at, nil
}

// free gives memory of Alloc back. No rank may be in a call on it. It says whether that was the last of a closed group.
func (g *Group) free(at unsafe.Pointer) (over bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.given[at]
	if m == nil {
		return false, invalid("free memory at %p: it is not from this group's alloc, or was freed before", at)
	}
	delete(g.given, at)
	m.pin.Unpin()
	g.ring.Free(m.data)
	if g.closed && len(g.given) == 0 {
		return true, g.ring.Close()
	}
	return false, nil
}

// close leaves the group. Calls under way end with an error. Memory of Alloc that is not freed stays: stays is called if there is any, and
// the last free ends the rest.
func (g *Group) close(stays func()) error {
	defer g.cancel()
	g.ring.Leave()
	_ = g.lane.run(g.ctx, func(context.Context) error { return nil }) // until no call touches its memory any more
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	if len(g.given) > 0 {
		stays()
		return nil
	}
	return g.ring.Close()
}
