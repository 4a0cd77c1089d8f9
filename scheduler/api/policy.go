package api

import (
	"bytes"
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/policyfile"
)

// GetPolicy returns the policy as a file.
func (s *Service) GetPolicy(ctx context.Context, req *schedulerv1.GetPolicyRequest) (*schedulerv1.GetPolicyResponse, error) {
	local := func(ctx context.Context) (*schedulerv1.GetPolicyResponse, error) {
		st, err := s.read(ctx, req.GetStale())
		if err != nil {
			return nil, err
		}
		p := st.Policy()
		return &schedulerv1.GetPolicyResponse{
			Yaml: string(policyfile.Format(p)), PolicyIndex: st.PolicyIndex(), Warnings: policyWarnings(st, p), Index: st.Index(),
		}, nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.GetPolicyResponse, error) {
			return c.GetPolicy(ctx, req)
		})
}

// SetPolicy replaces the policy. All problems of the file are told at once.
func (s *Service) SetPolicy(ctx context.Context, req *schedulerv1.SetPolicyRequest) (*schedulerv1.SetPolicyResponse, error) {
	user, err := s.caller(ctx, req.GetUser())
	if err != nil {
		return nil, err
	}
	p, err := policyfile.Parse(req.GetYaml())
	if err == nil {
		err = policyfile.ForServers(p)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if n := len(cluster.AppendCommand(nil, &cluster.SetPolicy{Policy: p, By: user})); n > cluster.MaxCommandBytes {
		return nil, status.Errorf(codes.InvalidArgument, "the policy takes %d bytes of the %d that one log entry holds: name fewer queues, or fewer GPU types in each", n, cluster.MaxCommandBytes)
	}
	return viaLeader(ctx, s,
		func(ctx context.Context) (*schedulerv1.SetPolicyResponse, error) {
			return s.setPolicy(ctx, req, p, user)
		},
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.SetPolicyResponse, error) {
			fwd := proto.CloneOf(req)
			fwd.User = user
			return c.SetPolicy(ctx, fwd)
		})
}

// setPolicy sets a policy on the leader. One that holds already is not set
// again: so a retry of a call whose answer was lost finds its work done.
func (s *Service) setPolicy(ctx context.Context, req *schedulerv1.SetPolicyRequest, p *cluster.Policy, user string) (*schedulerv1.SetPolicyResponse, error) {
	st, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	same := bytes.Equal(policyfile.Format(st.Policy()), policyfile.Format(p))
	out := &schedulerv1.SetPolicyResponse{Changed: !same, Warnings: policyWarnings(st, p), PolicyIndex: st.PolicyIndex()}
	if same || req.GetDryRun() {
		return out, nil
	}
	_, index, err := s.propose(ctx, &cluster.SetPolicy{Policy: p, By: user, Was: req.GetWasIndex(), Any: req.WasIndex == nil})
	if err != nil {
		return nil, err
	}
	s.log.Info("policy set", "by", user, "index", index)
	out.PolicyIndex = index
	return out, nil
}
