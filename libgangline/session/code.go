package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// Code is what a call of the C interface returns. The numbers are those of gangline.h: never change one.
type Code int32

// The codes.
const (
	OK         Code = iota
	Invalid         // an argument breaks a rule; nothing happened
	RankLost        // a rank was lost, and the group is broken
	Closed          // the group, or what else the handle named, was closed
	Timeout         // the time given for waiting is over; what was waited for goes on
	Fenced          // a newer epoch of the job has begun: this process is late and must end
	None            // there is no checkpoint, or no such tensor
	Damaged         // bytes on storage are not those that were written
	NoSpace         // the storage is full
	Incomplete      // not all ranks have written their part
	Busy            // it is in use
	Forked          // the process is a fork of the one that loaded the library; set by gangline.c
	Failed          // anything else; the text says what
	Panicked        // a bug in the library; the text says where
)

// Errors without details, for errors.Is.
var (
	errInvalid = errors.New("invalid argument")
	errTimeout = errors.New("the time given for waiting is over")
	errHandle  = errors.New("no such handle: it was closed, or never was")
)

// PanicError is a panic, caught before it could end the process.
type PanicError struct {
	Value any
	Stack []byte
}

// Error gives the panic's value and where it came from.
func (e *PanicError) Error() string {
	return fmt.Sprintf("libgangline has a bug and panicked: %v\n%s", e.Value, e.Stack)
}

// CodeOf says what an error is to a caller in C.
func CodeOf(err error) Code {
	var (
		lost     *allreduce.RankLostError
		fenced   *allreduce.FencedError
		corrupt  *checkpoint.CorruptError
		full     *checkpoint.NoSpaceError
		panicked *PanicError
	)
	switch {
	case err == nil:
		return OK
	case errors.As(err, &panicked):
		return Panicked
	case errors.Is(err, errInvalid), errors.Is(err, checkpoint.ErrInvalid), errors.Is(err, allreduce.ErrTag):
		return Invalid
	case errors.As(err, &fenced), errors.Is(err, checkpoint.ErrFenced):
		return Fenced
	case errors.As(err, &lost):
		return RankLost
	case errors.Is(err, allreduce.ErrClosed), errors.Is(err, workerclient.ErrClosed), errors.Is(err, errHandle):
		return Closed
	case errors.Is(err, allreduce.ErrBusy), errors.Is(err, checkpoint.ErrInUse):
		return Busy
	case errors.Is(err, checkpoint.ErrNone), errors.Is(err, checkpoint.ErrNoTensor):
		return None
	case errors.As(err, &corrupt), errors.Is(err, checkpoint.ErrAllBad):
		return Damaged
	case errors.As(err, &full):
		return NoSpace
	case errors.Is(err, checkpoint.ErrIncomplete):
		return Incomplete
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded):
		return Timeout
	default:
		return Failed
	}
}

// RankOf gives the rank that an error names as lost, or -1.
func RankOf(err error) int {
	var lost *allreduce.RankLostError
	if errors.As(err, &lost) {
		return lost.Rank
	}
	return -1
}

// ErrArgument says that an argument breaks a rule.
func ErrArgument(why string) error { return invalid("%s", why) }

// ErrRoom says that an answer does not fit.
func ErrRoom(need, room int) error {
	return invalid("the answer needs %d bytes, there is room for %d", need, room)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errInvalid, fmt.Errorf(format, args...))
}
