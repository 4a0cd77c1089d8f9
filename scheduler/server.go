package scheduler

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gangline/gangline/internal/grpclisten"
	"github.com/gangline/gangline/scheduler/api"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/replica"
	"github.com/gangline/gangline/scheduler/web"
)

// stopTimeout bounds the polite end of calls at shutdown; then they are cut.
const stopTimeout = 3 * time.Second

// Run serves until ctx ends or the server fails, and returns after everything
// it started has ended. A server whose ctx ends hands leadership over first.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s, err := open(cfg)
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// server is one running server. Its parts are made in the order of the fields
// and closed in the reverse order.
type server struct {
	cfg      Config
	log      *slog.Logger
	registry *prometheus.Registry
	mux      *replica.Mux
	web      net.Listener // nil: no metrics
	clock    *clock
	replica  *replica.Replica
	hub      *api.Hub
	service  *api.Service
	grpc     *grpc.Server
	leader   *leader
}

func open(cfg Config) (_ *server, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	s := &server{cfg: cfg, log: cfg.Logger.With("server", cfg.ID), registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	ln, err := listen("listen", cfg.Listen)
	if err != nil {
		return nil, err
	}
	if _, port, err := net.SplitHostPort(cfg.Listen); err == nil && port == "0" {
		cfg.Listen = ln.Addr().String() // the port that the kernel chose
	}
	if len(cfg.Servers) == 0 {
		cfg.Servers = []replica.Server{{ID: cfg.ID, Address: cfg.Listen}}
	}
	s.cfg = cfg
	s.mux = replica.NewMux(ln, replica.MuxConfig{TLS: raftTLS(cfg.ServerTLS, cfg.ClientTLS), Logger: s.log})
	if cfg.MetricsListen != "" {
		if s.web, err = listen("metrics-listen", cfg.MetricsListen); err != nil {
			return nil, err
		}
	}
	s.clock = &clock{wall: time.Now}
	s.replica, err = replica.Open(replica.Config{
		ID: cfg.ID, Servers: cfg.Servers, Dir: cfg.DataDir, Release: cfg.Version, Logger: s.log, Registerer: s.registry,
		Clock: s.clock.stamp,
	}, s.mux.Raft())
	if err != nil {
		return nil, err
	}
	s.clock.follow(func() cluster.Time { return s.replica.State().Now() })
	s.serveAPI()
	return s, nil
}

// serveAPI makes the gRPC server and the leader's loop.
func (s *server) serveAPI() {
	cfg := s.cfg
	var servers []api.Server
	for _, m := range cfg.Servers {
		servers = append(servers, api.Server{ID: m.ID, Address: m.Address})
	}
	dial := []grpc.DialOption{grpc.WithTransportCredentials(transportCredentials(cfg.ClientTLS))}
	state := apiReplica{s.replica}
	s.hub = api.NewHub(api.HubConfig{
		Replica: state, ServerID: cfg.ID, Servers: servers, Lease: cfg.Lease, Logger: s.log, Registerer: s.registry,
	})
	s.service = api.NewService(api.Config{
		Replica: state, ServerID: cfg.ID, Servers: servers, Version: cfg.Version, Logger: s.log, Registerer: s.registry,
		Control: cfg.Control, DialOptions: dial, AgentDialOptions: dial,
	}, s.hub)
	opts := s.service.ServerOptions()
	if cfg.ServerTLS != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(cfg.ServerTLS)))
	}
	s.grpc = grpc.NewServer(opts...)
	api.Register(s.grpc, s.service, s.hub)
	s.leader = &leader{
		replica: s.replica, hub: s.hub, clock: s.clock, cfg: cfg, log: s.log,
		metrics: newMetrics(s.registry, s.replica.State),
	}
}

// raftTLS joins what servers show and what they check into one configuration:
// between servers each side is both.
func raftTLS(server, client *tls.Config) *tls.Config {
	if server == nil {
		return nil
	}
	both := server.Clone()
	if client != nil {
		both.RootCAs = client.RootCAs
	}
	return both
}

func transportCredentials(c *tls.Config) credentials.TransportCredentials {
	if c == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(c)
}

// listen opens a port, or says what people can do about it.
func listen(setting, address string) (net.Listener, error) {
	ln, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: the port is taken, perhaps by another gangline server: stop it or choose another --%s: %w", setting, address, setting, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", setting, address, err)
	}
	return ln, nil
}

func (s *server) run(ctx context.Context) error {
	defer s.close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.grpc.Serve(grpclisten.Wrap(s.mux.GRPC())) })
	if s.web != nil {
		g.Go(func() error { return s.serveWeb(ctx) })
	}
	g.Go(func() error { return s.replica.Lead(ctx, s.leader.lead) })
	g.Go(func() error {
		select {
		case <-s.replica.Failed():
			return fmt.Errorf("server %s stops: %w", s.cfg.ID, s.replica.Err())
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	g.Go(func() error {
		<-ctx.Done()
		s.stopGRPC()
		return nil
	})
	if s.cfg.Ready != nil {
		metrics := ""
		if s.web != nil {
			metrics = s.web.Addr().String()
		}
		s.cfg.Ready(s.cfg.Listen, metrics)
	}
	s.log.Info("serves", "listen", s.cfg.Listen, "metrics", s.cfg.MetricsListen, "data", s.cfg.DataDir, "release", s.cfg.Version)
	err := g.Wait()
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, grpc.ErrServerStopped)) {
		return nil
	}
	return err
}

// stopGRPC ends calls politely: leadership goes first, so that clients that
// are told to go elsewhere find a leader there.
func (s *server) stopGRPC() {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := s.replica.TransferLeadership(ctx); err != nil {
		s.log.Debug("leadership was not handed over", "err", err)
	}
	s.service.Close()
	stopped := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.grpc.Stop()
		<-stopped
	}
}

// usage is what users' checkpoints take, for the status page.
func (s *server) usage() []web.Usage {
	var out []web.Usage
	for _, u := range s.hub.CheckpointUsage(&s.replica.State().Policy().Checkpoints, nil) {
		out = append(out, web.Usage{
			User: u.GetUser(), Bytes: u.GetBytes(), Checkpoints: u.GetCheckpoints(), Limit: u.GetLimitBytes(), Measured: time.Unix(0, u.GetMeasuredUnixNs()),
		})
	}
	return out
}

// serveWeb serves the HTTP pages until ctx ends.
func (s *server) serveWeb(ctx context.Context) error {
	handler := web.Handler(web.Config{
		Registry: s.registry, State: s.replica.State, Leader: s.replica.Leader, ServerID: s.cfg.ID, Version: s.cfg.Version,
		Now: func() cluster.Time { return cluster.Time(time.Now().UnixNano()) }, Logger: s.log, Usage: s.usage,
	})
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(s.web); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// close closes what is open, in reverse order. It may be called half made.
func (s *server) close() {
	if s.grpc != nil {
		s.service.Close()
		s.grpc.Stop()
	}
	if s.replica != nil {
		if err := s.replica.Close(); err != nil {
			s.log.Warn("the log did not close cleanly", "err", err)
		}
	}
	if s.web != nil {
		_ = s.web.Close() // closed by the HTTP server already, usually
	}
	if s.mux != nil {
		_ = s.mux.Close() // nothing is lost with a listener
	}
}
