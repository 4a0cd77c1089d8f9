package api

import (
	"context"

	"google.golang.org/grpc"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of one snapshot's stream.
const (
	snapshotPiece  = 1 << 20 // bytes of one message, far below what a client accepts
	snapshotBuffer = 4       // messages that wait to be sent
)

// GetSnapshot streams the outline of the state: what decides when jobs start and
// end, without what only their users need. It is read here, whoever leads, once
// this server knows what the leader knew when it was asked.
func (s *Service) GetSnapshot(req *schedulerv1.GetSnapshotRequest, stream grpc.ServerStreamingServer[schedulerv1.GetSnapshotResponse]) error {
	ctx, done, err := s.openStream(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	if !req.GetStale() {
		if err := s.catchUp(ctx); err != nil {
			return toStatus(s.log, err)
		}
	}
	st := s.cfg.Replica.State().Outline()
	var all []byte // it has to be as long as the state: the first message says how long it is
	err = st.Encode(func(b []byte) error {
		all = append(all, b...)
		return ctx.Err()
	})
	if err != nil {
		return toStatus(s.log, err)
	}
	out := newOutbox(ctx, &s.streams, snapshotBuffer, stream.Send)
	m := &schedulerv1.GetSnapshotResponse{Encoding: cluster.Version, AtUnixNs: int64(s.now()), Index: st.Index(), Bytes: uint64(len(all))}
	for len(all) > 0 {
		n := min(len(all), snapshotPiece)
		m.State, all = all[:n], all[n:]
		if err := out.put(ctx, m); err != nil {
			return toStatus(s.log, err)
		}
		m = &schedulerv1.GetSnapshotResponse{}
	}
	return toStatus(s.log, out.finish(ctx))
}

// catchUp waits until this server knows what the leader knows now.
func (s *Service) catchUp(ctx context.Context) error {
	got, err := s.GetPolicy(ctx, &schedulerv1.GetPolicyRequest{})
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	return s.cfg.Replica.WaitIndex(wait, got.GetIndex())
}
