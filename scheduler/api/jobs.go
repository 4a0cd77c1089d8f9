package api

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// SubmitJob accepts a job. All problems of the spec are told at once.
func (s *Service) SubmitJob(ctx context.Context, req *schedulerv1.SubmitJobRequest) (*schedulerv1.SubmitJobResponse, error) {
	user, err := s.caller(ctx, req.GetUser())
	if err != nil {
		return nil, err
	}
	if n := len(req.GetRequestId()); n == 0 || n > cluster.MaxRequestID {
		return nil, status.Errorf(codes.InvalidArgument, "request_id: must be 1 to %d bytes, is %d: choose a new one for each job, and the same for each retry", cluster.MaxRequestID, n)
	}
	if req.GetSpec() == nil {
		return nil, status.Error(codes.InvalidArgument, "spec: is missing")
	}
	spec := specFromProto(req.GetSpec())
	if err := spec.Validate(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	cmd := &cluster.SubmitJob{RequestID: req.GetRequestId(), User: user, Spec: spec}
	return viaLeader(ctx, s,
		func(ctx context.Context) (*schedulerv1.SubmitJobResponse, error) {
			res, index, err := s.propose(ctx, cmd)
			if err != nil {
				return nil, err
			}
			st := s.cfg.Replica.State()
			j := st.Job(res.Job)
			if j == nil {
				return nil, status.Errorf(codes.NotFound, "job %d, which this request_id made, ended so long ago that it was forgotten", res.Job)
			}
			return &schedulerv1.SubmitJobResponse{Job: wholeJobToProto(st, j, s.now()), Duplicate: res.Duplicate, Index: index}, nil
		},
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.SubmitJobResponse, error) {
			fwd := proto.CloneOf(req)
			fwd.User = user
			return c.SubmitJob(ctx, fwd)
		})
}

// CancelJob stops a job for good. Cancelling a final job changes nothing.
func (s *Service) CancelJob(ctx context.Context, req *schedulerv1.CancelJobRequest) (*schedulerv1.CancelJobResponse, error) {
	user, err := s.caller(ctx, req.GetUser())
	if err != nil {
		return nil, err
	}
	if err := checkText("reason", req.GetReason(), cluster.MaxReason); err != nil {
		return nil, err
	}
	cmd := &cluster.CancelJob{Job: cluster.JobID(req.GetId()), By: user, Reason: req.GetReason()}
	return viaLeader(ctx, s,
		func(ctx context.Context) (*schedulerv1.CancelJobResponse, error) {
			if _, _, err := s.propose(ctx, cmd); err != nil {
				return nil, err
			}
			st := s.cfg.Replica.State()
			j := st.Job(cmd.Job)
			if j == nil {
				return nil, noJob(cmd.Job)
			}
			return &schedulerv1.CancelJobResponse{Job: wholeJobToProto(st, j, s.now())}, nil
		},
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.CancelJobResponse, error) {
			fwd := proto.CloneOf(req)
			fwd.User = user
			return c.CancelJob(ctx, fwd)
		})
}

// propose logs one command and waits until this server's state shows it.
func (s *Service) propose(ctx context.Context, cmd cluster.Command) (cluster.Result, uint64, error) {
	results, index, err := s.cfg.Replica.Propose(ctx, cmd)
	if err != nil {
		return cluster.Result{}, 0, err
	}
	if len(results) != 1 {
		return cluster.Result{}, 0, fmt.Errorf("one command had %d results", len(results))
	}
	if err := resultError(results[0]); err != nil {
		return cluster.Result{}, 0, err
	}
	return results[0], index, s.cfg.Replica.WaitIndex(ctx, index)
}

func noJob(id cluster.JobID) error {
	return status.Errorf(codes.NotFound, "job %d does not exist, or ended so long ago that it was forgotten", id)
}

// GetJob returns one job, with live progress if it runs.
func (s *Service) GetJob(ctx context.Context, req *schedulerv1.GetJobRequest) (*schedulerv1.GetJobResponse, error) {
	local := func(ctx context.Context) (*schedulerv1.GetJobResponse, error) {
		st, err := s.read(ctx, req.GetStale())
		if err != nil {
			return nil, err
		}
		j := st.Job(cluster.JobID(req.GetId()))
		if j == nil {
			return nil, noJob(cluster.JobID(req.GetId()))
		}
		out := wholeJobToProto(st, j, s.now())
		s.addProgress(out, j)
		s.addRing(out, j)
		return &schedulerv1.GetJobResponse{Job: out, Index: st.Index()}, nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.GetJobResponse, error) {
			return c.GetJob(ctx, req)
		})
}

// addProgress replaces the recorded progress by what a running job said last.
func (s *Service) addProgress(p *schedulerv1.Job, j *cluster.Job) {
	if !j.State.Holding() {
		return
	}
	if live := s.hub.Progress(j.ID, j.Epoch); live != nil {
		p.Progress = progressToProto(live)
	}
	s.hub.addLocal(p, j.ID, j.Epoch)
	p.CheckpointProblem = s.hub.CheckpointProblem(j.ID, j.Epoch)
	p.CheckpointPace = s.hub.CheckpointPace(j.ID, j.Epoch)
}
