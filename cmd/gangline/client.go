package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
)

// retryPolicy retries calls that found no server; every call is idempotent.
const retryPolicy = `{"methodConfig":[{"name":[{"service":"gangline.scheduler.v1.SchedulerService"}],"waitForReady":true,
"retryPolicy":{"maxAttempts":5,"initialBackoff":"0.1s","maxBackoff":"2s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]}`

// maxReplyBytes is what a client accepts: a job of a large gang exceeds gRPC's default.
const maxReplyBytes = 256 << 20

// dial connects to any one of the servers. The caller closes the connection.
func (a *app) dial() (schedulerv1.SchedulerServiceClient, func(), error) {
	_, clientTLS, err := a.tls.load()
	if err != nil {
		return nil, nil, err
	}
	creds := insecure.NewCredentials()
	if clientTLS != nil {
		creds = credentials.NewTLS(clientTLS)
	}
	r := manual.NewBuilderWithScheme("gangline")
	var addrs []resolver.Address
	for _, s := range a.servers {
		host, _, _ := net.SplitHostPort(s) // checked before
		addrs = append(addrs, resolver.Address{Addr: s, ServerName: host})
	}
	if len(addrs) == 0 {
		return nil, nil, usage("--server names no server")
	}
	r.InitialState(resolver.State{Addresses: addrs})
	conn, err := grpc.NewClient("gangline:///cluster",
		grpc.WithResolvers(r), grpc.WithTransportCredentials(creds), grpc.WithDefaultServiceConfig(retryPolicy),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReplyBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		return nil, nil, usage("--server: %w", err)
	}
	return schedulerv1.NewSchedulerServiceClient(conn), func() { _ = conn.Close() }, nil
}

// call dials, bounds the call by --timeout, and runs f.
func (a *app) call(ctx context.Context, f func(context.Context, schedulerv1.SchedulerServiceClient) error) error {
	c, done, err := a.dial()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := a.callContext(ctx)
	defer cancel()
	return f(ctx, c)
}

func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, says its documentation
	return hex.EncodeToString(b[:])
}

func parseJobID(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil || id == 0 {
		return 0, usage("%q is not a job number such as 17", s)
	}
	return id, nil
}
