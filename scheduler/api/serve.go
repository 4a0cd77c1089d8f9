package api

import (
	"context"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// ServerOptions are the options with which the gRPC server of this API must be
// made: limits, keepalive, small buffers (a leader holds thousands of agents'
// connections), metrics, and a guard that turns a panic of a handler into
// INTERNAL. Transport credentials are the caller's to add.
func (s *Service) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxRequestBytes),
		grpc.ReadBufferSize(8 << 10),
		grpc.WriteBufferSize(16 << 10),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 2 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	}
}

// Register registers the public API, the agents' service, health and
// reflection on a server made with ServerOptions.
func Register(srv *grpc.Server, service *Service, hub *Hub) {
	schedulerv1.RegisterSchedulerServiceServer(srv, service)
	agentv1.RegisterAgentServiceServer(srv, hub)
	grpc_health_v1.RegisterHealthServer(srv, &health{service: service})
	reflection.Register(srv)
}

func (s *Service) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	begin := time.Now()
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, s.panicked(info.FullMethod, p)
		}
		err = toStatus(s.log, err)
		s.metrics.requests.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
		s.metrics.seconds.WithLabelValues(info.FullMethod).Observe(time.Since(begin).Seconds())
	}()
	return next(ctx, req)
}

func (s *Service) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(info.FullMethod, p)
		}
		err = toStatus(s.log, err)
		s.metrics.requests.WithLabelValues(info.FullMethod, status.Code(err).String()).Inc()
	}()
	return next(srv, toClient{stream})
}

// toClient is a stream whose client may vanish. A message to one that has just done so fails as UNAVAILABLE, which would count as if this server
// could not answer; a moment later, when gRPC has ended the stream's context, it fails as CANCELED. It is that either way.
type toClient struct{ grpc.ServerStream }

// SendMsg implements grpc.ServerStream.
func (s toClient) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if status.Code(err) == codes.Unavailable {
		return status.Error(codes.Canceled, "the client has gone: "+status.Convert(err).Message())
	}
	return err
}

func (s *Service) panicked(method string, p any) error {
	s.log.Error("a call panicked: this is a bug in Gangline", "method", method, "panic", p, "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "the server failed to answer: its log says why")
}

// health is the standard health service. A server is SERVING while it knows a
// leader, since only then can it answer: load balancers then avoid a server
// that is cut off. Nothing is stored: each question looks.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	service *Service
}

// healthPoll is how often a health watch looks.
const healthPoll = 500 * time.Millisecond

func (h *health) state(name string) (grpc_health_v1.HealthCheckResponse_ServingStatus, bool) {
	switch name {
	case "", schedulerv1.SchedulerService_ServiceDesc.ServiceName, agentv1.AgentService_ServiceDesc.ServiceName:
	default:
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN, false
	}
	if id, _ := h.service.cfg.Replica.Leader(); id == "" || h.service.closing.Err() != nil {
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING, true
	}
	return grpc_health_v1.HealthCheckResponse_SERVING, true
}

// Check answers for "", SchedulerService and AgentService.
func (h *health) Check(_ context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	st, ok := h.state(req.GetService())
	if !ok {
		return nil, status.Errorf(codes.NotFound, "service %q is not served here", req.GetService())
	}
	return &grpc_health_v1.HealthCheckResponse{Status: st}, nil
}

// List answers for all services at once.
func (h *health) List(context.Context, *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	out := &grpc_health_v1.HealthListResponse{Statuses: map[string]*grpc_health_v1.HealthCheckResponse{}}
	for _, name := range []string{"", schedulerv1.SchedulerService_ServiceDesc.ServiceName, agentv1.AgentService_ServiceDesc.ServiceName} {
		st, _ := h.state(name)
		out.Statuses[name] = &grpc_health_v1.HealthCheckResponse{Status: st}
	}
	return out, nil
}

// Watch sends the state now and whenever it changes.
func (h *health) Watch(req *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	ctx, done, err := h.service.openStream(stream.Context())
	if err != nil {
		return err
	}
	defer done()
	tick := time.NewTicker(healthPoll)
	defer tick.Stop()
	last := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		if st, _ := h.state(req.GetService()); st != last {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: st}); err != nil {
				return err
			}
			last = st
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return toStatus(h.service.log, context.Cause(ctx))
		}
	}
}
