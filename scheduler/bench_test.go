package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/replica"
)

// benchServers runs servers in this process, with real logs on disk and real
// sockets, and returns a client for each.
func benchServers(b *testing.B, n int) []schedulerv1.SchedulerServiceClient {
	b.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.Cleanup(func() { stop(); wg.Wait() })
	var peers []replica.Server
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		peers = append(peers, replica.Server{ID: fmt.Sprintf("s%d", i), Address: l.Addr().String()})
		_ = l.Close() // it only chose the port
	}
	var clients []schedulerv1.SchedulerServiceClient
	for _, p := range peers {
		cfg := DefaultConfig()
		cfg.ID, cfg.Listen, cfg.MetricsListen, cfg.Servers, cfg.DataDir = p.ID, p.Address, "", peers, b.TempDir()
		cfg.Logger = slog.New(slog.DiscardHandler)
		wg.Go(func() {
			if err := Run(ctx, cfg); err != nil {
				b.Error(err)
			}
		})
		conn, err := grpc.NewClient(p.Address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		clients = append(clients, schedulerv1.NewSchedulerServiceClient(conn))
	}
	return clients
}

// BenchmarkSubmit measures durable submits: fsynced by a majority, then
// acknowledged. Clients spread over all servers, as sweeps do.
func BenchmarkSubmit(b *testing.B) {
	for _, servers := range []int{1, 3} {
		for _, callers := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("servers=%d/clients=%d", servers, callers), func(b *testing.B) {
				clients := benchServers(b, servers)
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				submit := func(c schedulerv1.SchedulerServiceClient, id string) error {
					_, err := c.SubmitJob(ctx, &schedulerv1.SubmitJobRequest{RequestId: id, Spec: &schedulerv1.JobSpec{
						Name: "bench", Gpus: 1, Command: []string{"true"},
					}})
					return err
				}
				if err := submit(clients[0], "warm-up"); err != nil {
					b.Fatal(err)
				}
				var next atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for i := range callers {
					wg.Go(func() {
						for k := next.Add(1); k <= int64(b.N); k = next.Add(1) {
							if err := submit(clients[i%servers], fmt.Sprint(k)); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "submits/s")
			})
		}
	}
}
