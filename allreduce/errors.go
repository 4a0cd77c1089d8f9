package allreduce

import (
	"errors"
	"fmt"
	"time"
)

// Errors without details, for errors.Is.
var (
	// ErrClosed is returned by calls on a group after its own Close.
	ErrClosed = errors.New("the all-reduce group is closed")
	// ErrLeft is the cause in a RankLostError when the rank closed its group in
	// good order while others still needed it.
	ErrLeft = errors.New("it closed its group and left the ring")
	// ErrBusy is returned when a call is made while another one is under way
	// on the same group. It does not break the group.
	ErrBusy = errors.New("another call on this all-reduce group is under way: " +
		"make one call at a time, so that all ranks make them in the same order")

	errNoVector = errors.New("a vector without a type: make it with allreduce.Of or allreduce.Bits")
)

// RankLostError says that the ring is broken and which rank was lost. Every
// other rank of the epoch gets one that names a lost rank, not only its
// neighbours. When a rank's own context ends during a call, its error names
// itself, and so do the errors of the others.
//
// If a single connection between two live ranks fails, each of the two names
// the other, and the rest whichever report reached them first.
type RankLostError struct {
	Job   uint64
	Epoch uint64
	Rank  int   // the rank that was lost
	Cause error // how that was found out; never nil
}

// Error names the ring, the rank and the cause.
func (e *RankLostError) Error() string {
	return fmt.Sprintf("all-reduce of job %d epoch %d: rank %d is lost: %v", e.Job, e.Epoch, e.Rank, e.Cause)
}

// Unwrap returns Cause.
func (e *RankLostError) Unwrap() error { return e.Cause }

// FencedError says that a frame or a connection was refused since it belongs to
// another job or another epoch.
type FencedError struct {
	Job, Epoch           uint64 // what this side serves
	OtherJob, OtherEpoch uint64 // what the refused side said
	OtherRank            int    // the rank that the refused side said it is

	Formation, OtherFormation uint32 // of the epochs
}

// Late reports whether the refused side is of an earlier epoch of the same job, or of an earlier formation of the same epoch.
func (e *FencedError) Late() bool {
	return e.Job == e.OtherJob && (e.OtherEpoch < e.Epoch || e.OtherEpoch == e.Epoch && e.OtherFormation < e.Formation)
}

// Error names both sides.
func (e *FencedError) Error() string {
	formations := func(n uint32) string {
		if e.Formation == e.OtherFormation {
			return ""
		}
		return fmt.Sprintf(" formation %d", n)
	}
	return fmt.Sprintf("rank %d of job %d epoch %d%s was refused by the ring of job %d epoch %d%s",
		e.OtherRank, e.OtherJob, e.OtherEpoch, formations(e.OtherFormation), e.Job, e.Epoch, formations(e.Formation))
}

// MismatchError says that a neighbour's frame does not fit this rank's call: the
// two are at different calls, or gave vectors of different lengths.
type MismatchError struct {
	Rank      int    // the neighbour
	Want, Got string // what this rank is doing, what the neighbour is doing
}

// Error names both calls.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("rank %d sent a frame of %s, this rank is at %s: "+
		"all ranks must make the same calls in the same order with equal lengths", e.Rank, e.Got, e.Want)
}

// AbsentError is the cause in a RankLostError when neighbours never connected.
type AbsentError struct {
	Ranks  []int
	Waited time.Duration
}

// Error names the ranks.
func (e *AbsentError) Error() string {
	return fmt.Sprintf("it did not connect within %v (absent neighbours: ranks %v): "+
		"check that it runs, and that its address can be reached", e.Waited, e.Ranks)
}
