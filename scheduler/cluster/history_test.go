package cluster

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// TestHazardsAreOfWholeNumbers: divided as floats, hazards are what whole numbers
// give, also for the largest counts: replicas on all machines agree.
func TestHazardsAreOfWholeNumbers(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.SampledFrom([]uint32{3, 1 << 12, 1 << 20, math.MaxUint32}).Draw(t, "most")
		h := History{bins: historyBins}
		var hazard, want [historyBins]int64
		for i := range historyBins {
			h.Reached[i] = rapid.Uint32Max(most).Draw(t, "reached")
			h.Ended[i] = rapid.Uint32Max(h.Reached[i]).Draw(t, "ended")
			h.Alive[i] = rapid.Uint32Max(most).Draw(t, "alive")
			hazard[i] = rapid.Int64Range(0, historyOne).Draw(t, "hazard")
		}
		for i := range historyBins {
			reached := int64(h.Reached[i])
			if i+1 < historyBins {
				reached += int64(h.Alive[i+1]) * historyUnit
			}
			want[i] = hazard[i]
			if reached > 0 {
				want[i] = (int64(h.Ended[i])*historyOne + priorJobs*historyUnit*hazard[i]) / (reached + priorJobs*historyUnit)
			}
		}
		if h.refine(&hazard, 0); hazard != want {
			t.Fatalf("got hazards %v, want %v of %+v", hazard, want, h)
		}
	})
}
