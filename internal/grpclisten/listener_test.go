package grpclisten_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gangline/gangline/internal/grpclisten"
)

// preface is what a client of HTTP/2 says first.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// TestStopWaitsForNoHandshake: connections that say nothing, or half of what they should, do not hold up the server's end.
func TestStopWaitsForNoHandshake(t *testing.T) {
	t.Parallel()
	plain, secret := insecure.NewCredentials(), credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13})
	for _, c := range []struct {
		name, says string
		creds      credentials.TransportCredentials
		stop       func(*grpc.Server)
	}{
		{"silent", "", plain, (*grpc.Server).Stop},
		{"preface", preface, plain, (*grpc.Server).Stop},
		{"half a preface, gracefully", preface[:10], plain, (*grpc.Server).GracefulStop},
		{"TLS", "\x16\x03\x01", secret, (*grpc.Server).Stop},
		{"TLS, gracefully", "\x16\x03\x01", secret, (*grpc.Server).GracefulStop},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, listener := serve(t, grpc.Creds(c.creds))
			raw := dial(t, listener)
			if _, err := io.WriteString(raw, c.says); err != nil {
				t.Fatal(err)
			}
			listener.taken(t)
			stopped := make(chan struct{})
			go func() { c.stop(s); close(stopped) }()
			select {
			case <-stopped:
			case <-time.After(time.Minute): // half of gRPC's own limit
				t.Fatal("the server waits for a handshake")
			}
		})
	}
}

// TestCallsOutliveTheListener: a graceful stop lets calls end that are under way.
func TestCallsOutliveTheListener(t *testing.T) {
	t.Parallel()
	s, listener := serve(t)
	client, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // the test is over
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := healthpb.NewHealthClient(client).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() { s.GracefulStop(); close(stopped) }()
	listener.gone(t)
	listener.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if got, err := watch.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a call under way was cut: %v, %v", got, err)
	}
	cancel()
	<-stopped
}

// watched is a listener whose connections and end a test can wait for.
type watched struct {
	net.Listener
	health *health.Server
	took   chan struct{}
	ended  chan struct{}
}

func serve(t *testing.T, opts ...grpc.ServerOption) (*grpc.Server, *watched) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{Listener: grpclisten.Wrap(l), health: health.NewServer(), took: make(chan struct{}, 1), ended: make(chan struct{})}
	s := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(s, w.health)
	go s.Serve(w) //nolint:errcheck // until it is stopped
	t.Cleanup(s.Stop)
	return s, w
}

func (w *watched) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err == nil {
		w.took <- struct{}{}
	}
	return c, err
}

func (w *watched) Close() error {
	err := w.Listener.Close()
	select {
	case <-w.ended:
	default:
		close(w.ended)
	}
	return err
}

func (w *watched) taken(t *testing.T) {
	t.Helper()
	select {
	case <-w.took:
	case <-t.Context().Done():
	}
}

func (w *watched) gone(t *testing.T) {
	t.Helper()
	select {
	case <-w.ended:
	case <-t.Context().Done():
	}
}

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
