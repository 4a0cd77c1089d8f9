package api

import (
	"context"
	"fmt"
	"slices"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// ListNodes returns all nodes by name. Load, heartbeats and clock skew are the
// leader's knowledge: a stale answer of another server has none.
func (s *Service) ListNodes(ctx context.Context, req *schedulerv1.ListNodesRequest) (*schedulerv1.ListNodesResponse, error) {
	local := func(ctx context.Context) (*schedulerv1.ListNodesResponse, error) {
		st, err := s.read(ctx, req.GetStale())
		if err != nil {
			return nil, err
		}
		out := &schedulerv1.ListNodesResponse{Index: st.Index()}
		st.EachNode(func(n *cluster.Node) bool {
			out.Nodes = append(out.Nodes, nodeToProto(n, s.hub.Telemetry(n.ID)))
			return true
		})
		slices.SortFunc(out.Nodes, compareNodeNames)
		return out, nil
	}
	if req.GetStale() {
		out, err := local(ctx)
		return out, toStatus(s.log, err)
	}
	return viaLeader(ctx, s, local,
		func(ctx context.Context, c schedulerv1.SchedulerServiceClient) (*schedulerv1.ListNodesResponse, error) {
			return c.ListNodes(ctx, req)
		})
}

// GetCluster describes the cluster as this server sees it. It is answered here
// even without a leader, so that people can see why nothing else is.
func (s *Service) GetCluster(_ context.Context, _ *schedulerv1.GetClusterRequest) (*schedulerv1.GetClusterResponse, error) {
	leader, _ := s.cfg.Replica.Leader()
	st := s.cfg.Replica.State()
	out := &schedulerv1.GetClusterResponse{
		ClusterId: st.ClusterID(), LeaderId: leader, Term: s.cfg.Replica.Term(),
		AppliedIndex: st.Index(), StateHash: fmt.Sprintf("%016x", s.stateHash(st)),
		Version: s.cfg.Version, ServerId: s.cfg.ServerID,
	}
	for _, srv := range s.cfg.Servers {
		out.Servers = append(out.Servers, &schedulerv1.Server{Id: srv.ID, Address: srv.Address, Leader: srv.ID == leader})
	}
	return out, nil
}

// stateHash hashes a state, one at a time: it costs time in proportion to the
// state, so that many callers at once must not multiply it.
func (s *Service) stateHash(st *cluster.State) uint64 {
	s.hashMu.Lock()
	defer s.hashMu.Unlock()
	if st.Index() != s.hashed || st.Index() == 0 {
		s.hash, s.hashed = st.Hash(), st.Index()
	}
	return s.hash
}
