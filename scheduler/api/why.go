package api

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/forecast"
)

// maxForecasts is how many questions of why and when one server looks into at a
// time: each takes up to a second of a core, and the leader needs one for itself.
const maxForecasts = 2

// foresight answers questions about the newest state. It keeps one index for all
// of them.
type foresight struct {
	slots chan struct{} // as many as questions may be looked into at a time

	mu         sync.Mutex // guards forecaster
	forecaster *forecast.Forecaster
}

func newForesight(cfg Config) *foresight {
	return &foresight{slots: make(chan struct{}, maxForecasts), forecaster: forecast.New(cfg.Control)}
}

// ask answers a question about the state as it is when its turn has come. The
// first question reads the whole state, which takes up to two seconds.
func (f *foresight) ask(ctx context.Context, s *Service, q forecast.Question) (forecast.Answer, *cluster.State, error) {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return forecast.Answer{}, nil, ctx.Err()
	}
	c, st := f.look(s, q)
	if err := ctx.Err(); err != nil {
		return forecast.Answer{}, nil, err // nobody waits for the rest any more
	}
	return c.Answer(), st, nil
}

// look takes the state under the lock: states must come in their order.
func (f *foresight) look(s *Service, q forecast.Question) (*forecast.Case, *cluster.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := s.cfg.Replica.State()
	return f.forecaster.Look(st, s.now(), q), st
}

// Why says why a job waits, when it is expected to start, and what would start
// it sooner.
func (s *Service) Why(ctx context.Context, req *schedulerv1.WhyRequest) (*schedulerv1.WhyResponse, error) {
	local := func(ctx context.Context) (*schedulerv1.WhyResponse, error) {
		if _, err := s.read(ctx, req.GetStale()); err != nil {
			return nil, err
		}
		id := cluster.JobID(req.GetId())
		a, st, err := s.foresight.ask(ctx, s, forecast.Question{Job: id, Quick: req.GetQuick()})
		switch {
		case err != nil:
			return nil, err
		case a.Job == nil:
			return nil, noJob(id)
		}
		return &schedulerv1.WhyResponse{Job: wholeJobToProto(st, a.Job, a.Now), Prospects: prospectsToProto(st, &a), Index: st.Index()}, nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.WhyResponse, error) {
			return c.Why(ctx, req)
		})
}

// Plan says what would become of a job that is not submitted yet.
func (s *Service) Plan(ctx context.Context, req *schedulerv1.PlanRequest) (*schedulerv1.PlanResponse, error) {
	user, err := s.caller(ctx, req.GetUser())
	if err != nil {
		return nil, err
	}
	if req.GetSpec() == nil {
		return nil, status.Error(codes.InvalidArgument, "spec: is missing")
	}
	spec := specFromProto(req.GetSpec())
	if err := spec.Validate(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	local := func(ctx context.Context) (*schedulerv1.PlanResponse, error) {
		if _, err := s.read(ctx, req.GetStale()); err != nil {
			return nil, err
		}
		a, st, err := s.foresight.ask(ctx, s, forecast.Question{Spec: spec, User: user, Quick: req.GetQuick()})
		if err != nil {
			return nil, err
		}
		return &schedulerv1.PlanResponse{Refused: a.Refused, Prospects: prospectsToProto(st, &a), Warnings: a.Warnings, Index: st.Index()}, nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.PlanResponse, error) {
			fwd := proto.CloneOf(req)
			fwd.User = user
			return c.Plan(ctx, fwd)
		})
}
