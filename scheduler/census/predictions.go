package census

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Prediction is how well the length of some jobs was foretold.
type Prediction struct {
	cluster.Likeness

	Jobs    uint64  // that have ended
	Typical int64   // GPU time that half of the latest of them needed, in GPU-seconds
	Error   float64 // mean distance of what was expected at submission from what was needed, in doublings of GPU time
}

// Predictions lists what was learned of how long jobs run, at most so many: all
// jobs together first, then by size, by queue, and by user and name, those of
// most jobs first in each. A queue: only what is about it and those below it.
func Predictions(st *cluster.State, queue string, most int) []Prediction {
	c := &counter{opt: Options{Queue: queue}}
	var out []Prediction
	st.EachHistory(func(l cluster.Likeness, h *cluster.History) bool {
		if queue == "" || (l.Queue != "" && c.inside(l.Queue)) {
			out = append(out, Prediction{Likeness: l, Jobs: h.Jobs, Typical: h.Typical(), Error: float64(h.Error) / 1000})
		}
		return true
	})
	degree := func(p *Prediction) int {
		switch {
		case p.Limit:
			return 3
		case p.Queue != "":
			return 2
		case p.Milli > 0:
			return 1
		default:
			return 0
		}
	}
	slices.SortStableFunc(out, func(a, b Prediction) int {
		return cmp.Or(cmp.Compare(degree(&a), degree(&b)), cmp.Compare(b.Jobs, a.Jobs))
	})
	return out[:min(len(out), max(most, 0))]
}

// SizeClasses are the sizes of jobs that metrics tell apart, as labels.
func SizeClasses() []string { return []string{"share", "1", "2-7", "8-63", "64+"} }

// sizeClass is the class of a size in milli-GPUs.
func sizeClass(milli int64) string {
	names := SizeClasses()
	for i, above := range []int64{cluster.WholeGPU, 2 * cluster.WholeGPU, 8 * cluster.WholeGPU, 64 * cluster.WholeGPU} {
		if milli < above {
			return names[i]
		}
	}
	return names[len(names)-1]
}

// PredictionsBySize sums up the predictions by class of size; Milli and Typical
// mean nothing there. A class in which no job has ended is left out.
func PredictionsBySize(st *cluster.State) map[string]Prediction {
	out := map[string]Prediction{}
	st.EachHistory(func(l cluster.Likeness, h *cluster.History) bool {
		if l.Milli == 0 || l.Queue != "" {
			return l.Queue == "" // sizes come before queues
		}
		p := out[sizeClass(l.Milli)]
		p.Error = (p.Error*float64(p.Jobs) + float64(h.Error)/1000*float64(h.Jobs)) / float64(p.Jobs+h.Jobs)
		p.Jobs += h.Jobs
		out[sizeClass(l.Milli)] = p
		return true
	})
	return out
}
