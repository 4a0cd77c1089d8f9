package reconcile

import (
	"cmp"
	"fmt"
	"time"
)

// FencedGrace is the time between SIGTERM and SIGKILL for a worker that nobody wants any more (its job moved on to
// another epoch, or its node was given up). It gets no warning: its GPUs belong to somebody else already, and what it
// would still write is refused. Long enough to flush a log, short enough for the one who waits for the GPUs.
const FencedGrace = 5 * time.Second

// Key names one worker for ever: a rank of a job in one epoch.
type Key struct {
	Job   uint64
	Epoch uint64
	Rank  int
}

// String returns "JOB-EPOCH-RANK".
func (k Key) String() string { return fmt.Sprintf("%d-%d-%d", k.Job, k.Epoch, k.Rank) }

// Compare orders keys by job, epoch, then rank; it returns -1, 0 or 1.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Job, o.Job), cmp.Compare(k.Epoch, o.Epoch), cmp.Compare(k.Rank, o.Rank))
}

// Fence orders the messages of all leaders that ever were. The zero value is older than any order.
type Fence struct {
	// Term is the Raft term of the leader that sent the order.
	Term uint64
	// Index is the Raft index that the order shows.
	Index uint64
}

// Compare orders fences by term, then index; it returns -1, 0 or 1.
func (f Fence) Compare(o Fence) int {
	return cmp.Or(cmp.Compare(f.Term, o.Term), cmp.Compare(f.Index, o.Index))
}

// Admits returns nil if an agent that has obeyed f may obey an order fenced by next: the same or a later one. The
// same is admitted because a leader also repeats an order with what it learned meanwhile, such as peers' addresses.
func (f Fence) Admits(next Fence) error {
	if next.Compare(f) >= 0 {
		return nil
	}
	return fmt.Errorf("order of term %d, index %d is older than the last one obeyed (term %d, index %d): "+
		"it comes from a former leader", next.Term, next.Index, f.Term, f.Index)
}

// Stop says how a worker is to end.
type Stop struct {
	// Why is a sentence for people and for the worker.
	Why string
	// Warn is the time between the warning signal and SIGTERM; 0: no warning.
	Warn time.Duration
	// Grace is the time between SIGTERM and SIGKILL.
	Grace time.Duration
}

// Tighter tells whether s ends a worker earlier than o would, in either phase, if both had been asked for at once.
func (s Stop) Tighter(o Stop) bool {
	return s.Warn < o.Warn || s.Warn+s.Grace < o.Warn+o.Grace
}

// WholeGPU is all of a GPU in the unit of shares, thousandths.
const WholeGPU = 1000

// Slot is one worker of an assignment.
type Slot struct {
	Rank int
	// GPUs are the UUIDs that it will hold; empty for a worker on CPUs alone.
	GPUs []string
	// Milli is what it takes of each of them, in thousandths; 0, or more than WholeGPU: all.
	Milli int
}

// Assignment is what one job should have on this node in one epoch.
type Assignment struct {
	Job     uint64
	Epoch   uint64
	Workers []Slot
	// Stop is set when the workers are to end.
	Stop *Stop
}

// Desired is all that should run on the node.
type Desired struct {
	Assignments []Assignment
	// Acknowledged are exits that are safely recorded by the leader.
	Acknowledged []Key
}

// Worker is one worker as the node knows it.
type Worker struct {
	Key Key
	// GPUs are the UUIDs that it holds while Alive.
	GPUs []string
	// Milli is what it holds of each of them; see Slot.
	Milli int
	// Alive: its processes run, or are being started or stopped. False: its end is known.
	Alive bool
	// Acknowledged: the leader has its end on record.
	Acknowledged bool
	// Stopping is the tightest stop that it was already told, nil for none.
	Stopping *Stop
}

// Kind says what an Action does.
type Kind int

// The kinds of Action.
const (
	// Launch starts a worker.
	Launch Kind = iota + 1
	// Halt stops a living worker by the handshake of Action.Stop.
	Halt
	// Decline records that a worker ends before it started, because its stop came first: its leader waits for an end.
	Decline
	// Acknowledge lets the node forget a worker's end.
	Acknowledge
)

// String returns the kind in a word.
func (k Kind) String() string {
	switch k {
	case Launch:
		return "launch"
	case Halt:
		return "halt"
	case Decline:
		return "decline"
	case Acknowledge:
		return "acknowledge"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Action is one thing to do.
type Action struct {
	Kind Kind
	Key  Key
	// GPUs and Milli are those of the slot; for Launch and Decline.
	GPUs  []string
	Milli int
	// Stop says how and why; for Halt and Decline.
	Stop Stop
}
