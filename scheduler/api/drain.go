package api

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// maxDrain bounds a drain's deadline: a longer one is surely a mistake.
const maxDrain = 365 * 24 * time.Hour

// DrainNode lets a node take no new jobs. A second call replaces the reason
// and the deadline of the first.
func (s *Service) DrainNode(ctx context.Context, req *schedulerv1.DrainNodeRequest) (*schedulerv1.DrainNodeResponse, error) {
	user, err := s.caller(ctx, req.GetUser())
	if err != nil {
		return nil, err
	}
	if req.GetReason() == "" {
		return nil, status.Error(codes.InvalidArgument, "reason: is missing: say why, for those whose jobs do not start there")
	}
	if err := checkText("reason", req.GetReason(), cluster.MaxReason); err != nil {
		return nil, err
	}
	if d := req.GetDeadlineMs(); d < 0 || d > maxDrain.Milliseconds() {
		return nil, status.Errorf(codes.InvalidArgument, "deadline_ms: %d is not in 0..%d", d, maxDrain.Milliseconds())
	}
	return viaLeader(ctx, s,
		func(ctx context.Context) (*schedulerv1.DrainNodeResponse, error) {
			cmd := &cluster.DrainNode{Reason: req.GetReason(), By: user}
			if req.DeadlineMs != nil {
				cmd.Deadline = s.now().Add(millis(req.GetDeadlineMs()))
			}
			n, err := s.drain(ctx, req.GetNode(), cmd)
			return &schedulerv1.DrainNodeResponse{Node: n}, err
		},
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.DrainNodeResponse, error) {
			fwd := proto.CloneOf(req)
			fwd.User = user
			return c.DrainNode(ctx, fwd)
		})
}

// UndrainNode lets a node take jobs again. One that takes jobs is left alone.
func (s *Service) UndrainNode(ctx context.Context, req *schedulerv1.UndrainNodeRequest) (*schedulerv1.UndrainNodeResponse, error) {
	user, err := s.caller(ctx, req.GetUser())
	if err != nil {
		return nil, err
	}
	return viaLeader(ctx, s,
		func(ctx context.Context) (*schedulerv1.UndrainNodeResponse, error) {
			n, err := s.drain(ctx, req.GetNode(), &cluster.DrainNode{By: user, Off: true})
			return &schedulerv1.UndrainNodeResponse{Node: n}, err
		},
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.UndrainNodeResponse, error) {
			fwd := proto.CloneOf(req)
			fwd.User = user
			return c.UndrainNode(ctx, fwd)
		})
}

// drain logs a drain or its end for a node that is given by name or id.
func (s *Service) drain(ctx context.Context, node string, cmd *cluster.DrainNode) (*schedulerv1.Node, error) {
	st, err := s.read(ctx, false)
	if err != nil {
		return nil, err
	}
	n := st.NodeByName(node)
	if n == nil {
		n = st.Node(cluster.NodeID(node))
	}
	if n == nil {
		return nil, noNode(node)
	}
	cmd.Node = n.ID
	if _, _, err := s.propose(ctx, cmd); err != nil {
		return nil, err
	}
	if n = s.cfg.Replica.State().Node(cmd.Node); n == nil {
		return nil, noNode(node)
	}
	return nodeToProto(n, s.hub.Telemetry(n.ID)), nil
}

func noNode(node string) error {
	return status.Errorf(codes.NotFound, "no node has the name or id %.128q: see `gangline nodes`", node)
}
