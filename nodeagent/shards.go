package nodeagent

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"math"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/drain"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// noTiers answers for an agent without a disk for checkpoints.
func noTiers() error {
	return status.Error(codes.FailedPrecondition, "this agent keeps no checkpoints on its node's disk: start it with --checkpoint-local")
}

// checkPeerCert keeps users from reading or planting shards: over TLS an agent's certificate is good for serving, a user's is to be for
// clients only; one without any stated use is good for all. It is the rule by which the leader admits agents.
func checkPeerCert(ctx context.Context) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return nil // without TLS there is nothing to tell callers apart by
	}
	cert := info.State.VerifiedChains[0][0]
	if len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 || slices.ContainsFunc(cert.ExtKeyUsage, func(u x509.ExtKeyUsage) bool {
		return u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny
	}) {
		return nil
	}
	return status.Errorf(codes.PermissionDenied, "the certificate of %q is a client's: only agents give each other shards of checkpoints", cert.Subject.CommonName)
}

// ReadShard streams a shard from the node's own disk.
func (s *nodeService) ReadShard(req *agentv1.ReadShardRequest, out grpc.ServerStreamingServer[agentv1.ReadShardResponse]) error {
	if err := checkPeerCert(out.Context()); err != nil {
		return err
	}
	if s.drainer == nil {
		return noTiers()
	}
	f, err := s.drainer.Own(req.GetJobId(), req.GetFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return status.Errorf(codes.NotFound, "job %d has no %s on this node's disk", req.GetJobId(), req.GetFile())
	case errors.Is(err, checkpoint.ErrInvalid):
		return status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	}
	defer f.Close() //nolint:errcheck // it was only read from
	buf := make([]byte, shardPiece)
	at, most := req.GetOffset(), req.GetBytes()
	if at < 0 || most < 0 {
		return status.Errorf(codes.InvalidArgument, "%d bytes at %d of a file: neither can be negative", most, at)
	}
	if most == 0 {
		most = math.MaxInt64 - at
	}
	r := io.NewSectionReader(f, at, most)
	for {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := out.Send(&agentv1.ReadShardResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return status.Error(codes.Internal, err.Error())
		}
	}
}

// KeepShard keeps a copy of another node's shard.
func (s *nodeService) KeepShard(in grpc.ClientStreamingServer[agentv1.KeepShardRequest, agentv1.KeepShardResponse]) error {
	if err := checkPeerCert(in.Context()); err != nil {
		return err
	}
	if s.drainer == nil {
		return noTiers()
	}
	first, err := in.Recv()
	if err != nil {
		return err
	}
	content := &pieces{left: first.GetData(), next: func() ([]byte, error) {
		msg, err := in.Recv()
		return msg.GetData(), err
	}}
	err = s.drainer.Keep(in.Context(), first.GetJobId(), first.GetFile(), first.GetBytes(), content)
	switch {
	case errors.Is(err, drain.ErrNoRoom):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, checkpoint.ErrInvalid):
		return status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	}
	return in.SendAndClose(&agentv1.KeepShardResponse{})
}
