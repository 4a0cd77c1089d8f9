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

// asked is how many jobs ask for a shape: those that wait in a lane or hold GPUs.
type asked struct {
	shape *fleet.Shape
	jobs  int64
}

// ask counts so many jobs more that ask for a shape.
func (x *Index) ask(sh *fleet.Shape, jobs int64) {
	for sh.ID >= len(x.asked) {
		x.asked = append(x.asked, asked{})
	}
	a := &x.asked[sh.ID]
	if a.shape == nil {
		a.shape, x.varied = sh, x.varied || !plain(sh)
	}
	a.jobs += jobs
}

// plain reports whether a shape asks for whole GPUs alone.
func plain(sh *fleet.Shape) bool { return !sh.Shared() && sh.CPU == 0 && sh.Mem == 0 }

// mixRests reports whether the mix makes no difference, and will not as long as
// the state does not change.
func (x *Index) mixRests() bool {
	return x.policy.Score == cluster.ScoreBestFit || x.policy.Score == cluster.ScoreConsolidated ||
		!x.varied && len(x.fleet.Types()) < 2 && x.mixTotal == 0
}

// refreshMix tells the fleet what jobs ask for: those that wait or run. Where
// all ask for whole GPUs alone, of one type, the mix makes no difference.
func (x *Index) refreshMix() {
	at := x.now / mixPeriod
	if at == x.mixAt || x.policy.Score == cluster.ScoreBestFit || x.policy.Score == cluster.ScoreConsolidated {
		return
	}
	x.mixAt = at
	same, total, last := len(x.fleet.Types()) < 2, int64(0), 0
	for id := range x.asked {
		if a := &x.asked[id]; a.jobs > 0 {
			total += a.jobs
			same = same && plain(a.shape)
			last = id + 1
		}
	}
	if same {
		if x.mixTotal > 0 {
			x.mixCounts, x.mixTotal = nil, 0
			x.fleet.SetMix(nil, 0)
		}
		return
	}
	if !x.drifted(x.asked[:last], total) {
		return
	}
	counts, mix := make([]int64, last), []fleet.MixItem(nil)
	for id := range counts {
		if a := &x.asked[id]; a.jobs > 0 {
			counts[id] = a.jobs
			mix = append(mix, a.shape.Item(a.jobs))
		}
	}
	x.mixCounts, x.mixTotal = counts, total
	ended := x.state.Count(cluster.Succeeded) + x.state.Count(cluster.Failed) + x.state.Count(cluster.Cancelled)
	churn := 1000 * ended / max(ended+x.jobs.holding, 1)
	x.fleet.SetMix(mix, int32(churn)) //nolint:gosec // at most 1000
}

// drifted compares the mix with the one that the score knows, shape by shape.
func (x *Index) drifted(now []asked, total int64) bool {
	if x.mixTotal == 0 || total == 0 {
		return total > 0
	}
	drift := int64(0)
	for id := range now {
		n, was := now[id].jobs, int64(0)
		if id < len(x.mixCounts) {
			was = x.mixCounts[id]
		}
		d := n*1000/total - was*1000/x.mixTotal
		drift += max(d, -d)
	}
	return drift > mixDrift
}
