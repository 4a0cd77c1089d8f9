package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/gangline/gangline/scheduler/api"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/replica"
)

// apiReplica shows a replica as the API wants to see it.
type apiReplica struct {
	*replica.Replica
}

// Propose implements api.Replica: it translates the errors on which the API branches.
func (r apiReplica) Propose(ctx context.Context, cmds ...cluster.Command) ([]cluster.Result, uint64, error) {
	results, index, err := r.Replica.Propose(ctx, cmds...)
	return results, index, translate(err)
}

// Read implements api.Replica.
func (r apiReplica) Read(ctx context.Context) (*cluster.State, error) {
	s, err := r.Replica.Read(ctx)
	return s, translate(err)
}

func translate(err error) error {
	var notLeader *replica.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		return fmt.Errorf("%w: %w", api.ErrNotLeader, err)
	case errors.Is(err, replica.ErrClosed):
		return fmt.Errorf("%w: %w", api.ErrNotLeader, err)
	case errors.Is(err, replica.ErrBusy):
		return fmt.Errorf("%w: %w", api.ErrBusy, err)
	case errors.Is(err, replica.ErrUnknownOutcome):
		return fmt.Errorf("%w: %w", api.ErrUnknownOutcome, err)
	default:
		return err
	}
}

// Events implements api.Replica: changes above from, as many as the replica returns at once.
func (r apiReplica) Events(from uint64) ([]api.Event, bool) {
	events, err := r.EventsSince(from + 1)
	if err != nil {
		return nil, false
	}
	out := make([]api.Event, 0, len(events))
	for _, e := range events {
		out = append(out, api.Event{Index: e.Index, Job: e.Job, Node: e.Node, GoneJob: e.DeletedJob, GoneNode: e.DeletedNode})
	}
	return out, true
}

// Term implements api.Replica.
func (r apiReplica) Term() uint64 { return r.Status().Term }
