package replay

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestSortTimes: it sorts as slices.Sort does, by either of its ways, numbers of all sizes and signs, whole ones among them.
func TestSortTimes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.SampledFrom([]float64{0, 0, -10, math.Inf(-1)}).Draw(t, "least")
		some := rapid.SliceOfN(rapid.OneOf(rapid.Float64Range(from, 1e7), rapid.Just(0.0), rapid.Map(rapid.IntRange(0, 1e6), func(n int) float64 { return float64(n) }), rapid.Just(math.Inf(1)), rapid.Float64Range(0, 1e-300)), 1, 200).Draw(t, "some")
		got := slices.Repeat(some, rapid.IntRange(1, 2*radixLeast/len(some)).Draw(t, "times"))
		want := slices.Clone(got)
		slices.Sort(want)
		if got, _ = sortTimes(got, make([]float64, len(got))); !slices.Equal(got, want) {
			t.Fatalf("got %g, want %g", got, want)
		}
	})
}
