package api

import (
	"context"
	"errors"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Errors that a Replica wraps, and on which callers here branch.
var (
	// ErrNotLeader means that nothing was done: another server leads, or none.
	ErrNotLeader = errors.New("this server is not the leader")
	// ErrUnknownOutcome means that a command was logged, but leadership was
	// lost before it committed: it may or may not take effect. A retry is
	// safe, since every command is idempotent.
	ErrUnknownOutcome = errors.New("the leader was lost before the outcome was known")
	// ErrBusy means that the leader could not take commands: nothing was done.
	ErrBusy = errors.New("the leader takes no commands now")
)

// Server names one scheduler server.
type Server struct {
	ID      string
	Address string // host:port of its API
}

// Event is one change of one object, in log order. Exactly one of Job, Node,
// GoneJob and GoneNode is set.
type Event struct {
	Index    uint64
	Job      *cluster.Job // the job after the change
	Node     *cluster.Node
	GoneJob  cluster.JobID  // a job that was forgotten
	GoneNode cluster.NodeID // a node that was forgotten
}

// Replica is what the API needs of the replicated state. All methods may be
// called by any number of goroutines.
type Replica interface {
	// Propose logs commands and returns what each did, and the index that
	// holds the last. It wraps ErrNotLeader or ErrUnknownOutcome.
	Propose(ctx context.Context, cmds ...cluster.Command) ([]cluster.Result, uint64, error)
	// State is the newest applied snapshot: immutable, never nil, never blocks.
	State() *cluster.State
	// Read is a linearizable State. Only the leader has one: else ErrNotLeader.
	Read(ctx context.Context) (*cluster.State, error)
	// WaitIndex blocks until State().Index() >= index.
	WaitIndex(ctx context.Context, index uint64) error
	// Events returns the next changes with an index above from, oldest first,
	// a bounded number; all changes of one index come together, and none means
	// that there is none now. A change may be in State() a little before it is
	// here. Without ok, changes above from are no longer remembered: read State
	// instead. A from above the newest index is fine: there is nothing yet.
	Events(from uint64) (events []Event, ok bool)
	// Updated returns a channel that is closed after the state has next
	// changed and its events are there. Take it before looking.
	Updated() <-chan struct{}
	// Leader names the leader, "" and "" while none is known.
	Leader() (id, address string)
	// Term is the server's current Raft term.
	Term() uint64
}
