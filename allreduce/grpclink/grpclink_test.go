package grpclink_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

func TestMain(m *testing.M) {
	if os.Getenv(rankVariable) != "" { // see TestProcessesLostAnywhere
		if err := beRank(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

const (
	job    = 7
	epoch  = 3
	detect = 1500 * time.Millisecond // real time: a loaded test machine with -race was silent for 0.6 s
	bound  = 2 * time.Second         // what a loaded machine may add
)

// listeners returns n loopback listeners and their addresses.
func listeners(t testing.TB, n int) ([]net.Listener, []string) {
	t.Helper()
	ls, addrs := make([]net.Listener, n), make([]string, n)
	for i := range ls {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ls[i], addrs[i] = l, l.Addr().String()
	}
	return ls, addrs
}

func config(rank int, peers []string, l net.Listener) grpclink.Config {
	return grpclink.Config{
		Job: job, Epoch: epoch, Rank: rank, Peers: peers, Listener: l,
		DetectTimeout: detect, JoinTimeout: 20 * time.Second, Secret: secret,
	}
}

// joinAll joins all ranks at once; change may alter a rank's config.
func joinAll(t testing.TB, n int, change func(c *grpclink.Config)) []*allreduce.Group {
	t.Helper()
	ls, peers := listeners(t, n)
	groups := make([]*allreduce.Group, n)
	var all errgroup.Group
	for r := range groups {
		all.Go(func() error {
			cfg := config(r, peers, ls[r])
			if change != nil {
				change(&cfg)
			}
			g, err := grpclink.Join(t.Context(), cfg)
			groups[r] = g
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatalf("Join of %d ranks: %v", n, err)
	}
	return groups
}

func closeAll(groups []*allreduce.Group) {
	var all errgroup.Group
	for _, g := range groups {
		all.Go(g.Close)
	}
	_ = all.Wait()
}

// paths are all that frames can travel on.
var paths = []grpclink.Path{grpclink.PathGRPC, grpclink.PathTCP, grpclink.PathUnix, grpclink.PathShared}

func TestAllReduceOverLoopback(t *testing.T) {
	t.Parallel()
	worlds := []int{1, 2, 3, 4, 5, 8}
	for i := range len(paths) * len(worlds) {
		path, n := paths[i/len(worlds)], worlds[i%len(worlds)]
		t.Run(fmt.Sprintf("%s/ranks=%d", path, n), func(t *testing.T) {
			t.Parallel()
			groups := joinAll(t, n, func(c *grpclink.Config) {
				c.DetectTimeout, c.ChunkBytes, c.Path = 10*time.Second, 16<<10, path
			})
			defer closeAll(groups)
			for _, length := range []int{0, 1, n - 1, n, n + 1, 300_001} {
				var all errgroup.Group
				for r, g := range groups {
					all.Go(func() error { return sumOnce(t.Context(), g, r, n, length) })
				}
				if err := all.Wait(); err != nil {
					t.Fatalf("%d elements: %v", length, err)
				}
			}
		})
	}
}

// sumOnce sums small whole numbers, which are exact in any order, in memory that is no more as soon as that may be: who touches it then ends the test's process.
func sumOnce(ctx context.Context, g *allreduce.Group, rank, world, length int) error {
	data, free := mapped(length)
	defer free()
	for i := range data {
		data[i] = float32(rank + i%1000)
	}
	if err := g.AllReduce(ctx, allreduce.Of(data), allreduce.Sum); err != nil {
		return fmt.Errorf("rank %d: %w", rank, err)
	}
	for i := range data {
		if want := float32(world*(world-1)/2 + world*(i%1000)); data[i] != want {
			return fmt.Errorf("rank %d: element %d is %v, want %v", rank, i, data[i], want)
		}
	}
	return nil
}

// The caller may free or overwrite its buffer at once: no bytes on their way are its
// memory. Small and large messages take different paths through gRPC.
func TestBufferBelongsToCallerAfterReturn(t *testing.T) {
	t.Parallel()
	lengths := []int{10, 400, 5_000, 1 << 18}
	for i := range len(paths) * len(lengths) {
		path, length := paths[i/len(lengths)], lengths[i%len(lengths)]
		t.Run(fmt.Sprintf("%s/elements=%d", path, length), func(t *testing.T) {
			t.Parallel()
			const n = 3
			groups := joinAll(t, n, func(c *grpclink.Config) { c.DetectTimeout, c.Path = 10*time.Second, path })
			defer closeAll(groups)
			var all errgroup.Group
			for r, g := range groups {
				all.Go(func() error {
					for range 20 {
						if err := sumOnce(t.Context(), g, r, n, length); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// checkLost fails unless the error names the rank and came in time.
func checkLost(t *testing.T, rank, lostRank int, err error, since time.Time, limit time.Duration) {
	t.Helper()
	var lost *allreduce.RankLostError
	if !errors.As(err, &lost) || lost.Rank != lostRank || lost.Job != job || lost.Epoch != epoch {
		t.Errorf("rank %d: error %v, want that rank %d of job %d epoch %d is lost", rank, err, lostRank, job, epoch)
	}
	if took := time.Since(since); took > limit {
		t.Errorf("rank %d: error after %v, limit %v", rank, took, limit)
	}
}
