package api

import (
	"context"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// goneStream is a stream with a context of the test's.
type goneStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s goneStream) Context() context.Context { return s.ctx }

// TestVanishedClientIsNoFailure: what a handler makes of a client that has gone depends on whether it was just sending; it counts as a call that was
// cancelled either way. Of a client that is there it counts as it is.
func TestVanishedClientIsNoFailure(t *testing.T) {
	t.Parallel()
	s := newFixture(t).s1().service
	closing := func(any, grpc.ServerStream) error { return status.Error(codes.Unavailable, "transport is closing") }
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for ctx, want := range map[context.Context]codes.Code{gone: codes.Canceled, t.Context(): codes.Unavailable} {
		err := s.stream(nil, goneStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: "/a/B"}, closing)
		if status.Code(err) != want {
			t.Errorf("with a context that has ended by %v: %v, want %s", ctx.Err(), err, want)
		}
	}
	if err := s.stream(nil, goneStream{ctx: gone}, &grpc.StreamServerInfo{FullMethod: "/a/B"}, func(any, grpc.ServerStream) error { return nil }); err != nil {
		t.Errorf("a call that had ended well: %v", err)
	}
}
