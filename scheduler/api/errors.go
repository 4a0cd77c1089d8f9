package api

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/scheduler/cluster"
)

// errNoLeader means that no server leads, as far as this one knows.
var errNoLeader = errors.New("no server leads now")

// codeOf is the one place where refusals of commands become gRPC codes.
func codeOf(c cluster.Code) codes.Code {
	switch c {
	case cluster.OK:
		return codes.OK
	case cluster.Invalid:
		return codes.InvalidArgument
	case cluster.NotFound:
		return codes.NotFound
	case cluster.Conflict:
		return codes.Aborted
	case cluster.NameTaken:
		return codes.AlreadyExists
	case cluster.NeverFits, cluster.WrongCluster, cluster.StaleCheckpoint:
		return codes.FailedPrecondition
	case cluster.TooMany:
		return codes.ResourceExhausted
	case cluster.UnknownVersion:
		return codes.Unimplemented
	default:
		return codes.Internal
	}
}

// resultError is a refused command as users see it, or nil.
func resultError(r cluster.Result) error {
	if r.Code == cluster.OK {
		return nil
	}
	return status.Error(codeOf(r.Code), r.Message)
}

// toStatus is the one place where all other errors become gRPC statuses. A
// status stays as it is; what users cannot act on is logged and hidden.
func toStatus(log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.Unknown {
		return st.Err()
	}
	switch {
	case errors.Is(err, ErrNotLeader), errors.Is(err, errNoLeader):
		return status.Error(codes.Unavailable, "no server leads the cluster now: most servers must be up and reach each other; try again")
	case errors.Is(err, ErrUnknownOutcome):
		return status.Error(codes.Unavailable, "the leader was lost before the outcome was known: try again; the same request_id never makes a second job")
	case errors.Is(err, ErrBusy):
		return status.Error(codes.Unavailable, "the leader's log takes no entries now, perhaps its disk is slow or full: nothing was changed; try again")
	case errors.Is(err, errStalled):
		return status.Error(codes.Aborted, "this client reads too slowly, the stream was ended: connect again, a watch with the last index that was received")
	case errors.Is(err, errClosing):
		return status.Error(codes.Unavailable, "this server is shutting down: connect to another one, a watch with the last index that was received")
	case errors.Is(err, errReignOver):
		return status.Error(codes.Unavailable, "this server no longer leads: connect again")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "the call's deadline passed; a write may have taken effect: try again with the same request_id")
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the call was cancelled")
	}
	log.Error("call failed", "err", err)
	return status.Error(codes.Internal, "the server failed to answer: its log says why")
}

// retriable reports whether a call that failed so may succeed on the leader
// when it is made again. All calls of the API are idempotent.
func retriable(err error) bool {
	return errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrBusy) || errors.Is(err, errNoLeader) ||
		status.Code(err) == codes.Unavailable
}
