package api

import (
	"errors"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// goneStream is a stream whose connection has just been closed, as gRPC tells it.
type goneStream struct{ grpc.ServerStream }

func (goneStream) SendMsg(any) error { return status.Error(codes.Unavailable, "transport is closing") }

// TestVanishedClientIsNoFailure: a client that vanishes while something is sent to it counts as a call that was cancelled. What the server itself
// says is left alone.
func TestVanishedClientIsNoFailure(t *testing.T) {
	t.Parallel()
	s := newFixture(t).s1().service
	info := &grpc.StreamServerInfo{FullMethod: "/a/B"}
	err := s.stream(nil, goneStream{}, info, func(_ any, stream grpc.ServerStream) error { return stream.SendMsg(nil) })
	if status.Code(err) != codes.Canceled {
		t.Errorf("after a message to a client that has gone: %v, want CANCELED", err)
	}
	err = s.stream(nil, goneStream{}, info, func(any, grpc.ServerStream) error { return toStatus(s.log, errClosing) })
	if status.Code(err) != codes.Unavailable {
		t.Errorf("when the server closes: %v, want UNAVAILABLE", err)
	}
}

// TestNoConnectionAfterClose: a call that is under way while the server closes opens no connection that nobody would close.
func TestNoConnectionAfterClose(t *testing.T) {
	t.Parallel()
	c := newConnCache(nil, 2)
	conn, err := c.get("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	c.close()
	if got := conn.GetState(); got != connectivity.Shutdown {
		t.Errorf("the connection is %s after close", got)
	}
	if _, err := c.get("127.0.0.1:1"); !errors.Is(err, errClosing) {
		t.Errorf("after close: %v, want errClosing", err)
	}
}
