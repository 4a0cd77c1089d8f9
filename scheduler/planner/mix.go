package planner

import (
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
)

// mixPeriod is how often the mix of requests is looked at, and mixDrift by how
// many thousandths it must have changed for the score to take it in: that costs
// milliseconds.
const (
	mixPeriod = 10e9
	mixDrift  = 100
)

// refreshMix tells the fleet what jobs ask for: those that wait or run. Where
// all ask for whole GPUs alone, of one type, the mix makes no difference.
func (x *Index) refreshMix() {
	at := x.now / mixPeriod
	if at == x.mixAt || x.policy.Score == cluster.ScoreBestFit {
		return
	}
	x.mixAt = at
	var counts []int64
	var shapes []*fleet.Shape
	add := func(sh *fleet.Shape, jobs int) {
		for sh.ID >= len(counts) {
			counts, shapes = append(counts, 0), append(shapes, nil)
		}
		counts[sh.ID], shapes[sh.ID] = counts[sh.ID]+int64(jobs), sh
	}
	for _, l := range x.lanes { // any order: a sum
		add(l.shape.Shape, l.jobs.len())
	}
	for _, r := range x.running { // any order: a sum
		add(x.fleet.Shape(r.job.Spec), 1)
	}
	plain, total := len(x.fleet.Types()) < 2, int64(0)
	var mix []fleet.MixItem
	for id, sh := range shapes {
		if sh == nil {
			continue
		}
		total += counts[id]
		mix = append(mix, sh.Item(counts[id]))
		plain = plain && !sh.Shared() && sh.CPU == 0 && sh.Mem == 0
	}
	if plain {
		if x.mixTotal > 0 {
			x.mixCounts, x.mixTotal = nil, 0
			x.fleet.SetMix(nil, 0)
		}
		return
	}
	if !x.drifted(counts, total) {
		return
	}
	x.mixCounts, x.mixTotal = counts, total
	ended := x.state.Count(cluster.Succeeded) + x.state.Count(cluster.Failed) + x.state.Count(cluster.Cancelled)
	churn := 1000 * ended / max(ended+len(x.running), 1)
	x.fleet.SetMix(mix, int32(churn)) //nolint:gosec // at most 1000
}

// drifted compares the mix with the one that the score knows, shape by shape.
func (x *Index) drifted(counts []int64, total int64) bool {
	if x.mixTotal == 0 || total == 0 {
		return total > 0
	}
	drift := int64(0)
	for id, n := range counts {
		was := int64(0)
		if id < len(x.mixCounts) {
			was = x.mixCounts[id]
		}
		d := n*1000/total - was*1000/x.mixTotal
		drift += max(d, -d)
	}
	return drift > mixDrift
}
