package api

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Bounds of one server's API.
const (
	// MaxRequestBytes is the largest message that a server accepts: a spec is
	// at most 256 KiB, a full report of a large node below 2 MiB.
	MaxRequestBytes = 4 << 20
	// MaxReplyBytes is what clients should accept: a job of 100,000 workers or
	// a list of 10,000 nodes is larger than gRPC's default of 4 MiB.
	MaxReplyBytes = 256 << 20
	// maxStreams is how many watches and log streams one server serves at a
	// time: each holds goroutines and a buffer.
	maxStreams = 10_000
)

// Config is what a Service needs.
type Config struct {
	Replica  Replica
	ServerID string   // this server's id, as Replica.Leader names it
	Servers  []Server // all servers of the cluster, this one too
	Version  string   // this server's release

	// Control is how the leader decides, for forecasts. Zero: the defaults.
	Control control.Config

	Clock      func() time.Time      // nil: time.Now
	Logger     *slog.Logger          // nil: slog.Default
	Registerer prometheus.Registerer // nil: metrics are not exported

	// DialOptions reach the other servers, AgentDialOptions the agents. They
	// hold the transport credentials; nil: plain text.
	DialOptions      []grpc.DialOption
	AgentDialOptions []grpc.DialOption
}

// Service is the public API of one server. Make it with NewService; call Close
// before the gRPC server stops. It is safe for concurrent use.
type Service struct {
	schedulerv1.UnimplementedSchedulerServiceServer

	cfg     Config
	log     *slog.Logger
	hub     *Hub
	metrics *metrics
	peers   *connCache // to other servers

	foresight *foresight

	closing context.Context // ended by Close
	close   context.CancelFunc
	streams sync.WaitGroup // streams being served, and their goroutines

	activeMu sync.Mutex // guards active and closed
	active   int
	closed   bool

	hashMu sync.Mutex // guards the hash of the newest state that was hashed
	hashed uint64
	hash   uint64
}

// NewService makes the public API. The hub is the leader's memory of progress,
// samples and heartbeats; it may be shared with nobody else.
func NewService(cfg Config, hub *Hub) *Service {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Control.Thorough == 0 {
		cfg.Control = control.DefaultConfig()
	}
	s := &Service{cfg: cfg, log: cfg.Logger, hub: hub, metrics: newMetrics(cfg.Registerer), foresight: newForesight(cfg)}
	s.peers = newConnCache(cfg.DialOptions, maxConns)
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// Close ends all watches and log streams, which tells their clients to connect
// to another server, and closes the connections to other servers. It waits for
// all of the Service's goroutines.
func (s *Service) Close() {
	s.activeMu.Lock()
	s.closed = true // no stream begins after this, so that Wait sees all
	s.activeMu.Unlock()
	s.close()
	s.streams.Wait()
	s.peers.close()
}

// now is this server's time.
func (s *Service) now() cluster.Time { return cluster.Time(s.cfg.Clock().UnixNano()) }

// openStream admits one more stream. The context ends with the stream or with
// Close; the caller must call done.
func (s *Service) openStream(parent context.Context) (ctx context.Context, done func(), err error) {
	s.activeMu.Lock()
	defer s.activeMu.Unlock()
	switch {
	case s.closed:
		return nil, nil, toStatus(s.log, errClosing)
	case s.active >= maxStreams:
		return nil, nil, status.Errorf(codes.ResourceExhausted, "this server serves %d streams, its most: connect to another server", maxStreams)
	}
	s.active++
	s.streams.Add(1)
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(s.closing, func() { cancel(errClosing) })
	return ctx, func() {
		stop()
		cancel(nil)
		s.activeMu.Lock()
		s.active--
		s.activeMu.Unlock()
		s.streams.Done()
	}, nil
}

// withDefaults adds what every connection of this package has in common.
func withDefaults(opts []grpc.DialOption) []grpc.DialOption {
	out := []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxReplyBytes)),
		grpc.WithConnectParams(reconnect()),
		grpc.WithNoProxy(), // servers and agents are near; a proxy for the web is not on the way
	}
	if opts == nil {
		return append(out, grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
	return append(out, opts...)
}
