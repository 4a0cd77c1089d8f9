package grpclink_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// A chunk that takes longer than a silent rank is given does not make a rank lost: its parts are signs of life of who sends it, and that they
// have come is one of who reads it.
func TestSlowLinkIsNoLoss(t *testing.T) {
	t.Parallel()
	for _, path := range []grpclink.Path{grpclink.PathTCP, grpclink.PathGRPC} {
		t.Run(string(path), func(t *testing.T) {
			t.Parallel()
			const n, parts = 2, 32 // the relay reads 32 KiB at a time
			ls, peers := listeners(t, n)
			slow := newRelay(t, peers[1])
			defer slow.cut()
			groups := make([]*allreduce.Group, n)
			var all errgroup.Group
			for r := range groups {
				own := []string{peers[0], slow.addr()}
				all.Go(func() (err error) {
					cfg := config(r, own, ls[r])
					cfg.Path, cfg.ChunkBytes = path, parts*32<<10
					groups[r], err = grpclink.Join(t.Context(), cfg)
					return err
				})
			}
			if err := all.Wait(); err != nil {
				t.Fatal(err)
			}
			defer closeAll(groups)
			slow.pause.Store(int64(detect * 3 / 2 / parts)) // a chunk takes half as long again
			start := time.Now()
			for r, g := range groups {
				all.Go(func() error { return sumOnce(t.Context(), g, r, n, parts*32<<10/4*n) })
			}
			if err := all.Wait(); err != nil {
				t.Error(err)
			}
			t.Log(fmt.Sprint("it took ", time.Since(start)))
		})
	}
}
