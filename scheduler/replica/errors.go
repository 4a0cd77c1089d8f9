package replica

import (
	"errors"
	"fmt"
)

// ErrUnknownOutcome means that commands were given to the log, but whether they
// commit is not known: leadership was lost, the caller's context ended, or the
// disk refused. Proposing the same commands again is safe, because every
// command carries its own identity.
var ErrUnknownOutcome = errors.New("the outcome is unknown: it may or may not take effect; trying again is safe")

// ErrClosed means that the replica was closed.
var ErrClosed = errors.New("this server is shutting down: ask another one")

// ErrBusy means that the leader could not take the commands in time; nothing
// was appended.
var ErrBusy = errors.New("the leader's log is not taking entries, probably because of a slow disk: nothing was changed; try again")

// NotLeaderError means that this server does not lead. Nothing was appended.
type NotLeaderError struct {
	LeaderID      string // "" while no leader is known
	LeaderAddress string // where to ask instead, host:port
}

func (e *NotLeaderError) Error() string {
	if e.LeaderID == "" {
		return "this server is not the leader and knows of none at the moment: try again in a second"
	}
	return fmt.Sprintf("this server is not the leader: ask server %s at %s", e.LeaderID, e.LeaderAddress)
}

// EventsGoneError means that events from the asked index on are no longer kept:
// list the state anew and watch from its index.
type EventsGoneError struct {
	From, Oldest uint64 // asked for; first index that is still complete
}

func (e *EventsGoneError) Error() string {
	return fmt.Sprintf("events from index %d are no longer kept, the oldest is %d: list again and watch from there", e.From, e.Oldest)
}

// WrongClusterError means that data or a peer belong to another cluster.
type WrongClusterError struct {
	What         string // what holds the other identity: a directory or a server
	Theirs, Ours string // cluster ids
	Advice       string
}

func (e *WrongClusterError) Error() string {
	return fmt.Sprintf("%s belongs to cluster %s, not to %s: %s", e.What, e.Theirs, e.Ours, e.Advice)
}
