package nodeagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/internal/grpclisten"
	"github.com/gangline/gangline/nodeagent/drain"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// logChunk is the size of a piece of output: the contract allows 64 KiB.
	logChunk = 64 << 10
	// maxTail bounds how many lines can be counted back; who wants more wants all.
	maxTail = 100_000
	// tailStep is how far back the search for lines goes first; it grows fourfold.
	tailStep = 64 << 10
	// maxRequest bounds a request to the agent's own service.
	maxRequest = shardPiece + 64<<10
	// maxReaders bounds the streams of one caller, so that a burst of followers cannot eat the node.
	maxReaders = 256
	// headerWait bounds slow scrapers.
	headerWait = 5 * time.Second
)

// nodeService serves output from the node's disk.
type nodeService struct {
	agentv1.UnimplementedNodeServiceServer
	workers *worker.Manager
	drainer *drain.Drainer // nil: no disk for checkpoints
}

// serve runs the agent's gRPC server until ctx ends.
func (a *Agent) serve(ctx context.Context) error {
	opts := append([]grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxReaders), grpc.WaitForHandlers(true),
	}, a.transport.serve...)
	s := grpc.NewServer(opts...)
	agentv1.RegisterNodeServiceServer(s, &nodeService{workers: a.workers, drainer: a.tiers.drainer})
	healthpb.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	defer context.AfterFunc(ctx, s.Stop)()
	err := s.Serve(grpclisten.Wrap(a.listener))
	s.Stop() // waits for the handlers
	if ctx.Err() != nil || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", a.cfg.Listen, err)
}

// serveMetrics runs the /metrics server until ctx ends.
func (a *Agent) serveMetrics(ctx context.Context) error {
	if a.metricsListener == nil {
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: headerWait}))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: headerWait}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })() // the agent ends: a scrape is not worth a wait
	if err := s.Serve(a.metricsListener); ctx.Err() == nil {
		return fmt.Errorf("serve metrics on %s: %w", a.cfg.MetricsListen, err)
	}
	return nil
}

// ReadLogs streams one worker's output.
func (s *nodeService) ReadLogs(req *agentv1.ReadLogsRequest, out grpc.ServerStreamingServer[agentv1.ReadLogsResponse]) error {
	k := req.GetKey()
	key := worker.Key{Job: k.GetJobId(), Epoch: k.GetEpoch(), Rank: int(k.GetRank())}
	stream := worker.Stdout
	if req.GetStderr() {
		stream = worker.Stderr
	}
	ctx := out.Context()
	offset, err := int64(0), error(nil)
	if n := req.GetTailLines(); n > 0 {
		offset, err = s.tailOffset(ctx, key, stream, int(min(n, maxTail)))
	}
	if err == nil {
		err = s.copyLog(ctx, key, stream, offset, req.GetFollow(), out)
	}
	switch {
	case errors.Is(err, worker.ErrUnknown):
		return status.Errorf(codes.NotFound, "job %d has no output of rank %d in epoch %d on this node: "+
			"it has not started yet, or its output was removed after the time that the node keeps it", key.Job, key.Rank, key.Epoch)
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case err != nil && status.Code(err) == codes.Unknown:
		return status.Error(codes.Internal, err.Error())
	}
	return err
}

func (s *nodeService) copyLog(ctx context.Context, key worker.Key, stream worker.Stream, offset int64, follow bool,
	out grpc.ServerStreamingServer[agentv1.ReadLogsResponse],
) error {
	r, err := s.workers.ReadLog(ctx, key, stream, offset, follow)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was written
	buf := make([]byte, logChunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := out.Send(&agentv1.ReadLogsResponse{Data: buf[:n]}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// tailOffset finds where the last n lines begin. It reads back in growing steps, so that a short tail of a huge log is
// cheap.
func (s *nodeService) tailOffset(ctx context.Context, key worker.Key, stream worker.Stream, n int) (int64, error) {
	for step := int64(tailStep); ; step *= 4 {
		r, err := s.workers.ReadLog(ctx, key, stream, -step, false)
		if err != nil {
			return 0, err
		}
		from := r.Offset()
		starts, oldest, err := lineStarts(r, n)
		if err = errors.Join(err, r.Close()); err != nil {
			return 0, err
		}
		if len(starts) == n {
			return starts[0], nil
		}
		if from == 0 || oldest > from {
			return oldest, nil // all that there is
		}
	}
}

// lineStarts returns the offsets at which the last n lines begin, as far as their beginning is seen, and the offset of
// the first byte that was read.
func lineStarts(r *worker.LogReader, n int) (starts []int64, oldest int64, err error) {
	buf := make([]byte, logChunk)
	ring, count := make([]int64, n), 0
	oldest = -1
	pending := r.Offset() == 0 // the next byte begins a line
	for {
		read, err := r.Read(buf)
		begin := r.Offset() - int64(read)
		if oldest < 0 {
			oldest = begin
		}
		for i, c := range buf[:read] {
			if pending {
				ring[count%n] = begin + int64(i)
				count++
			}
			pending = c == '\n'
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, err
		}
		if err != nil && count <= n {
			return ring[:count], oldest, nil
		}
		if err != nil {
			return slices.Concat(ring[count%n:], ring[:count%n]), oldest, nil
		}
	}
}
