package allreduce_test

import (
	"context"
	"math"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/memlink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newRing returns the groups of all ranks, connected in memory. Ranks named as
// frozen are so from the start. The caller
// closes them with closeAll, inside the bubble if there is one.
func newRing(t testing.TB, n int, cfg allreduce.Config, frozen ...int) ([]*allreduce.Group, []memlink.Ends) {
	t.Helper()
	groups, ends := make([]*allreduce.Group, n), []memlink.Ends(nil)
	if n > 1 {
		ends = memlink.Ring(n)
	}
	for _, r := range frozen {
		ends[r].Next.Freeze()
		ends[r].Prev.Freeze()
	}
	for r := range groups {
		cfg.Rank, cfg.WorldSize = r, n
		var next, prev allreduce.Link
		if n > 1 {
			next, prev = ends[r].Next, ends[r].Prev
		}
		g, err := allreduce.New(cfg, next, prev)
		if err != nil {
			t.Fatalf("New rank %d of %d: %v", r, n, err)
		}
		groups[r] = g
	}
	return groups, ends
}

func closeAll(groups []*allreduce.Group) {
	var all errgroup.Group
	for _, g := range groups {
		all.Go(g.Close)
	}
	_ = all.Wait()
}

// reduceAll calls AllReduce on every rank at once and returns what each said.
func reduceAll(ctx context.Context, groups []*allreduce.Group, data [][]float32) []error {
	errs := make([]error, len(groups))
	var all errgroup.Group
	for r, g := range groups {
		all.Go(func() error {
			errs[r] = g.AllReduce(ctx, allreduce.Of(data[r]), allreduce.Sum)
			return nil
		})
	}
	_ = all.Wait()
	return errs
}

// inputs returns one vector per rank with values whose sum is inexact, so that
// an order of addition other than the documented one shows.
func inputs(world, length, seed int) [][]float32 {
	data := make([][]float32, world)
	for r := range data {
		data[r] = make([]float32, length)
		for i := range data[r] {
			x := uint32(i*2654435761+r*40503+seed*97) ^ uint32(i>>3) //nolint:gosec // any mixing will do
			data[r][i] = float32(x%20011)/7 - 1000
		}
	}
	return data
}

// checkSums fails the test unless every rank holds the same bits and they are
// the sum of the inputs to rounding.
func checkSums(t testing.TB, got, in [][]float32) {
	t.Helper()
	for i := range got[0] {
		var want, size float64
		for r := range in {
			want += float64(in[r][i])
			size += math.Abs(float64(in[r][i]))
		}
		if math.Abs(float64(got[0][i])-want) > 1e-6*(size+1) {
			t.Fatalf("%d ranks, %d elements: element %d is %v, want %v", len(in), len(got[0]), i, got[0][i], want)
		}
		for r := range got {
			if math.Float32bits(got[r][i]) != math.Float32bits(got[0][i]) {
				t.Fatalf("%d ranks, %d elements: element %d is %x on rank %d and %x on rank 0",
					len(in), len(got[0]), i, math.Float32bits(got[r][i]), r, math.Float32bits(got[0][i]))
			}
		}
	}
}

func clone(data [][]float32) [][]float32 {
	out := make([][]float32, len(data))
	for r := range data {
		out[r] = append([]float32(nil), data[r]...)
	}
	return out
}
