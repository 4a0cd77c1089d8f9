package api

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/census"
	"github.com/gangline/gangline/scheduler/cluster"
)

// maxListed bounds the users of a queue and the reasons of one answer.
const maxListed = 1000

// ListQueues returns the queues with what they hold and what waits in them.
func (s *Service) ListQueues(ctx context.Context, req *schedulerv1.ListQueuesRequest) (*schedulerv1.ListQueuesResponse, error) {
	for _, f := range []struct {
		name string
		n    int32
	}{{"users", req.GetUsers()}, {"reasons", req.GetReasons()}} {
		if f.n < 0 || f.n > maxListed {
			return nil, status.Errorf(codes.InvalidArgument, "%s: %d is not in 0..%d", f.name, f.n, maxListed)
		}
	}
	local := func(ctx context.Context) (*schedulerv1.ListQueuesResponse, error) {
		st, err := s.read(ctx, req.GetStale())
		if err != nil {
			return nil, err
		}
		c := census.Take(st, s.now(), census.Options{Queue: req.GetQueue(), Users: int(req.GetUsers()), Reasons: int(req.GetReasons())})
		if len(c.Queues) == 0 && req.GetQueue() != "" {
			return nil, status.Errorf(codes.NotFound, "queue %q is not in the policy, and no job is in it", req.GetQueue())
		}
		return censusToProto(c, st.Index()), nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.ListQueuesResponse, error) {
			return c.ListQueues(ctx, req)
		})
}

// defaultPredictions is how many predictions are listed if nobody says.
const defaultPredictions = 20

// ListPredictions returns how well the lengths of jobs were foretold.
func (s *Service) ListPredictions(ctx context.Context, req *schedulerv1.ListPredictionsRequest) (*schedulerv1.ListPredictionsResponse, error) {
	limit := int(req.GetLimit())
	switch {
	case limit < 0 || limit > maxListed:
		return nil, status.Errorf(codes.InvalidArgument, "limit: %d is not in 0..%d", limit, maxListed)
	case limit == 0:
		limit = defaultPredictions
	}
	local := func(ctx context.Context) (*schedulerv1.ListPredictionsResponse, error) {
		st, err := s.read(ctx, req.GetStale())
		if err != nil {
			return nil, err
		}
		out := &schedulerv1.ListPredictionsResponse{Index: st.Index()}
		for _, p := range census.Predictions(st, req.GetQueue(), limit) {
			out.Predictions = append(out.Predictions, &schedulerv1.Prediction{
				Queue: p.Queue, User: p.User, Name: p.Name, Gpus: wholeGPUs(p.Milli), Jobs: p.Jobs, TypicalGpuSeconds: p.Typical, ErrorDoublings: p.Error,
			})
		}
		return out, nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.ListPredictionsResponse, error) {
			return c.ListPredictions(ctx, req)
		})
}

func censusToProto(c *census.Census, index uint64) *schedulerv1.ListQueuesResponse {
	out := &schedulerv1.ListQueuesResponse{Index: index}
	for i := range c.Queues {
		out.Queues = append(out.Queues, queueToProto(&c.Queues[i]))
	}
	for _, r := range c.Reasons {
		out.Reasons = append(out.Reasons, reasonToProto(r))
	}
	if c.Others.Jobs > 0 {
		out.OtherReasons = reasonToProto(c.Others)
	}
	return out
}

func queueToProto(q *census.Queue) *schedulerv1.Queue {
	p := &schedulerv1.Queue{
		Path: q.Path, InPolicy: q.Policy != nil, Weight: 1, BorrowedGpus: wholeGPUs(q.BorrowedMilli),
		HoldingJobs: clampCount(q.Holding), PendingJobs: clampCount(q.Pending), PendingGpus: wholeGPUs(q.PendingMilli),
	}
	if d := q.Policy; d != nil {
		p.Quota, p.Limit = countsToProto(d.Quota), countsToProto(d.Limit)
		p.Weight, p.UserLimit, p.Closed = float64(d.Weight)/1000, d.UserLimit, d.Closed
	}
	for _, a := range q.Held {
		p.Held = append(p.Held, &schedulerv1.GPUCount{Type: a.Type, Gpus: wholeGPUs(a.Milli)})
	}
	for _, u := range q.Users {
		p.Users = append(p.Users, &schedulerv1.QueueUser{
			User: u.Name, UsedGpuHours: wholeGPUs(u.UsedMilli) / 3_600_000, HeldGpus: wholeGPUs(u.HeldMilli),
		})
	}
	return p
}

func countsToProto(counts []cluster.TypeCount) []*schedulerv1.GPUCount {
	var out []*schedulerv1.GPUCount
	for _, c := range counts {
		out = append(out, &schedulerv1.GPUCount{Type: c.Type, Gpus: float64(c.GPUs)})
	}
	return out
}

func reasonToProto(r census.Reason) *schedulerv1.PendingReason {
	return &schedulerv1.PendingReason{Reason: r.Text, Jobs: clampCount(r.Jobs), Gpus: wholeGPUs(r.Milli), FirstJob: uint64(r.First)}
}

func wholeGPUs(milli int64) float64 { return float64(milli) / cluster.WholeGPU }

// clampCount is a number of jobs on the wire: there are at most a million.
func clampCount(n int) int32 { return int32(min(n, cluster.MaxLiveJobs)) } //nolint:gosec // bounded
