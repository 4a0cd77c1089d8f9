package grpclink

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
)

// DialAsBefore makes a rank dial by grpc-go, as it did in releases before package h2stream.
func (c *Config) DialAsBefore() { c.dial = dialGRPCGo }

// ServeAsBefore makes a rank leave all streams to grpc-go, as it did in those releases.
func (c *Config) ServeAsBefore() { c.grpcgo = true }

// dialGRPCGo opens a stream to the next rank by grpc-go.
func dialGRPCGo(ctx context.Context, d *dialer) (stream, error) {
	conn, err := grpc.NewClient("passthrough:///"+d.addr, d.cfg.dialOptions(&readPool{})...)
	if err != nil {
		return nil, err
	}
	s, err := conn.NewStream(ctx, streamDesc(nil), linkMethod)
	if err != nil {
		_ = conn.Close() // a test's
		return nil, err
	}
	d.sessions.Add(1)
	context.AfterFunc(ctx, func() {
		defer d.sessions.Done()
		_ = conn.Close() // as above
	})
	return s, nil
}

// streamDesc describes the one method of RingService; handler is nil for clients.
func streamDesc(handler grpc.StreamHandler) *grpc.StreamDesc {
	return &grpc.StreamDesc{StreamName: "Link", Handler: handler, ServerStreams: true, ClientStreams: true}
}

func (c Config) dialOptions(reads *readPool) []grpc.DialOption {
	creds := insecure.NewCredentials()
	if c.ClientTLS != nil {
		creds = credentials.NewTLS(c.ClientTLS)
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{}), grpc.MaxCallRecvMsgSize(c.ChunkBytes+messageRoom)),
		grpc.WithStaticStreamWindowSize(c.flowWindow()),
		grpc.WithStaticConnWindowSize(c.flowWindow()),
		grpc.WithDisableRetry(), // a retry buffer would hold on to payloads
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
			if err == nil {
				keepNear(conn)
			}
			return conn, err
		}),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: connectTime,
		}),
		experimental.WithBufferPool(reads),
	}
}
