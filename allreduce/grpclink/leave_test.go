package grpclink_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// TestLastCallIsNotLost: a rank that leaves right after a call takes nothing along that others need to complete theirs, on links that were just opened
// and on older ones.
func TestLastCallIsNotLost(t *testing.T) {
	t.Parallel()
	for _, path := range []grpclink.Path{grpclink.PathTCP, grpclink.PathGRPC, grpclink.PathAuto} {
		t.Run(fmt.Sprintf("path %q", path), func(t *testing.T) {
			t.Parallel()
			for i := range 12 {
				calls := 1 + i%3
				leave(t, 3, path, func(g *allreduce.Group) error {
					for range calls {
						if err := g.AllReduce(t.Context(), allreduce.Of([]float32{1}), allreduce.Sum); err != nil {
							return fmt.Errorf("of %d calls: %w", calls, err)
						}
					}
					return nil
				})
			}
		})
	}
}

// TestLeavingIsNoticedByAll: also where short vectors go by recursive doubling, in which a rank that left may be needed by one that is no neighbour of it.
func TestLeavingIsNoticedByAll(t *testing.T) {
	t.Parallel()
	for gone := range 6 {
		t.Run(fmt.Sprintf("rank %d", gone), func(t *testing.T) {
			t.Parallel()
			leave(t, 6, grpclink.PathUnix, func(g *allreduce.Group) error {
				call := func() error { return g.AllReduce(t.Context(), allreduce.Of([]float32{1}), allreduce.Sum) }
				if err := call(); err != nil || g.Rank() == gone {
					return err
				}
				var lost *allreduce.RankLostError
				if err := call(); !errors.As(err, &lost) || lost.Rank != gone {
					return fmt.Errorf("after rank %d has left: %w", gone, err)
				}
				return nil
			})
		})
	}
}

// leave lets all ranks of a ring live and leave.
func leave(t *testing.T, n int, path grpclink.Path, life func(*allreduce.Group) error) {
	t.Helper()
	var wait sync.WaitGroup
	for r, g := range joinAll(t, n, func(c *grpclink.Config) { c.Path, c.DetectTimeout = path, 3*time.Second }) {
		wait.Go(func() {
			if err := life(g); err != nil {
				t.Errorf("rank %d: %v", r, err)
			}
			_ = g.Close() // returns nil
		})
	}
	wait.Wait()
}
