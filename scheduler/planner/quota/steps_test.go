package quota

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestEstimateIsClose: whatever the numbers, an estimate of excess is as close to it as Steps takes it to be, or says that it is none.
func TestEstimateIsClose(t *testing.T) {
	t.Parallel()
	tree := New(policy(t, "a"))
	numbers, doubts := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		c := &tree.clock
		tree.tick(cluster.Time(rapid.Int64Range(0, 9).Draw(t, "block"))*cluster.Time(c.length*blockSize) +
			cluster.Time(rapid.Int64Range(0, c.length*blockSize-1).Draw(t, "in it")))
		some := func(name string) use { // as accounts make it: g at an earlier moment is left out again
			rate := int64(1) << rapid.IntRange(0, 38).Draw(t, name+" rate") * rapid.Int64Range(0, 3).Draw(t, name+" rates")
			u := use{rate: rate, held: rate*1000 + rapid.Int64Range(-1, 1<<20).Draw(t, name+" held")}
			since := max(c.at-cluster.Time(rapid.Int64Range(0, 1<<rapid.IntRange(30, 52).Draw(t, name+" long")).Draw(t, name+" since")), 0)
			used := rapid.Int64Range(0, 1<<rapid.IntRange(0, 45).Draw(t, name+" much")).Draw(t, name+" used")
			u.base = product(used, 1_000_000).times(c.weight).minus(c.growth(since).times(rate))
			return u
		}
		mine, all := some("mine"), some("others")
		all.add(mine, 1)
		weight := rapid.Int64Range(1, 100_000).Draw(t, "weight")
		weights := weight + rapid.Int64Range(0, 1<<rapid.IntRange(0, 24).Draw(t, "heavy")).Draw(t, "weights")
		got, want := tree.about(mine, tree.worthAbout(all), weight, weights), tree.excess(mine, all, weight, weights)
		if numbers++; math.IsInf(got.doubt, 1) {
			doubts++
			return
		}
		off := math.Abs(math.Log2(got.ratio) - float64(want)/1000)
		if got.doubt == 1 && off != 0 || off > math.Log2(got.doubt) {
			t.Fatalf("estimate %f (%f) of %d", got.ratio, got.doubt, want)
		}
	})
	if doubts > numbers/2 {
		t.Errorf("%d estimates, %d of them none", numbers, doubts)
	}
}

// TestStepsIn: a ratio makes as many steps as fit below it.
func TestStepsIn(t *testing.T) {
	t.Parallel()
	for n := int64(-100); n <= 100; n++ {
		edge := math.Exp2(float64(n) * Step / 1000)
		if below, above := stepsIn(edge*(1-1e-12)), stepsIn(edge*(1+1e-12)); below != n-1 || above != n {
			t.Errorf("%d steps: %d below, %d above", n, below, above)
		}
	}
}
