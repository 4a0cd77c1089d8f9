package grpclink_test

import (
	"errors"
	"fmt"
	"runtime/debug"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// Memory that is none faults in the goroutine that made the call, which may be prepared for it, wherever it is met, and the other rank is told.
func TestBadMemoryFaultsInTheCall(t *testing.T) {
	t.Parallel()
	const size, root = 1 << 20, 1
	for i := range 4 {
		path, bad := []grpclink.Path{grpclink.PathTCP, grpclink.PathGRPC}[i%2], i/2 // rank 1 sends, rank 0 receives
		t.Run(fmt.Sprintf("%s/rank=%d", path, bad), func(t *testing.T) {
			t.Parallel()
			groups := joinAll(t, 2, func(c *grpclink.Config) { c.Path = path })
			defer closeAll(groups)
			memory, err := syscall.Mmap(-1, 0, size, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Munmap(memory)
			var all errgroup.Group
			for r, g := range groups {
				all.Go(func() error {
					if r != bad {
						err := g.Broadcast(t.Context(), allreduce.Bits(allreduce.Int8, make([]byte, size)), root)
						if err == nil {
							err = g.Barrier(t.Context()) // the sender may have been done
						}
						if lost := (*allreduce.RankLostError)(nil); !errors.As(err, &lost) || lost.Rank != bad {
							t.Errorf("rank %d: %v, want that rank %d is lost", r, err, bad)
						}
						return nil
					}
					defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
					defer func() {
						if recover() == nil {
							t.Errorf("rank %d met no fault", r)
						}
						_ = g.Close() // as the library for other languages does
					}()
					return g.Broadcast(t.Context(), allreduce.Bits(allreduce.Int8, memory), root)
				})
			}
			if err := all.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}
