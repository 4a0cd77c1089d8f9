package allreduce_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// BenchmarkAllReduce runs all ranks in this one process. GB/s is the vector's
// bytes through one all-reduce, what a rank sees; bus_GB/s is that times
// 2(n-1)/n, what each link carries.
func BenchmarkAllReduce(b *testing.B) {
	links := []struct {
		name string
		join func(b testing.TB, n int) []*allreduce.Group
	}{
		{"grpc", joinLoopback(grpclink.PathGRPC)},
		{"tcp", joinLoopback(grpclink.PathTCP)},
		{"unix", joinLoopback(grpclink.PathUnix)},
		{"memlink", func(b testing.TB, n int) []*allreduce.Group {
			b.Helper()
			groups, _ := newRing(b, n, allreduce.Config{})
			return groups
		}},
	}
	for _, link := range links {
		for _, n := range []int{2, 4} {
			for _, size := range []int{4 << 10, 1 << 20, 64 << 20} {
				name := fmt.Sprintf("%dKiB", size>>10)
				if size >= 1<<20 {
					name = fmt.Sprintf("%dMiB", size>>20)
				}
				b.Run(fmt.Sprintf("%s/ranks=%d/%s", link.name, n, name), func(b *testing.B) {
					groups := link.join(b, n)
					defer closeAll(groups)
					benchmarkSums(b, groups, size)
				})
			}
		}
	}
}

func benchmarkSums(b *testing.B, groups []*allreduce.Group, size int) {
	b.Helper()
	data := make([][]float32, len(groups))
	for r := range data {
		data[r] = make([]float32, size/4)
	}
	for r, err := range reduceAll(b.Context(), groups, data) { // touches fresh memory once
		if err != nil {
			b.Fatalf("rank %d: %v", r, err)
		}
	}
	b.ResetTimer()
	var all errgroup.Group
	for r, g := range groups {
		all.Go(func() error {
			for range b.N {
				if err := g.AllReduce(b.Context(), allreduce.Of(data[r]), allreduce.Sum); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer() // leaving the ring is not part of it
	n := float64(len(groups))
	rate := float64(size) * float64(b.N) / b.Elapsed().Seconds() / 1e9
	b.ReportMetric(rate, "GB/s")
	b.ReportMetric(rate*2*(n-1)/n, "bus_GB/s")
}

func joinLoopback(path grpclink.Path) func(b testing.TB, n int) []*allreduce.Group {
	return func(b testing.TB, n int) []*allreduce.Group {
		b.Helper()
		groups, err := joinedBy(b.Context(), path, n)
		if err != nil {
			b.Fatal(err)
		}
		return groups
	}
}

// joinedBy makes a group whose links take a path.
func joinedBy(ctx context.Context, path grpclink.Path, n int) ([]*allreduce.Group, error) {
	listeners, peers := make([]net.Listener, n), make([]string, n)
	for r := range listeners {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		listeners[r], peers[r] = l, l.Addr().String()
	}
	groups := make([]*allreduce.Group, n)
	var all errgroup.Group
	for r := range groups {
		all.Go(func() (err error) {
			groups[r], err = grpclink.Join(ctx, grpclink.Config{
				Job: 1, Epoch: 1, Rank: r, Peers: peers, Listener: listeners[r], Path: path, Secret: []byte("a secret of benchmarks"),
				// Many groups of one busy process may well be silent for seconds, and take long to begin.
				DetectTimeout: time.Minute, JoinTimeout: time.Minute,
			})
			return err
		})
	}
	return groups, all.Wait()
}
