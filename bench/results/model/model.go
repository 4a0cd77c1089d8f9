// Package model is a small model of a cluster that decides by one number for each job, to say how near to exact lengths
// an order can come that does not know them. It shares no code with Gangline and nothing of it decides anything there.
//
// Nodes are alike. A gang of more GPUs than a node has takes whole nodes, a smaller one a part of one node, best fit. Jobs
// are taken in the order of their indices, the least first; who does not fit is passed over. Whoever runs and is not
// taken stops, and pays for it when it runs again. That is decided at each arrival and end, and every Tick.
package model

import (
	"cmp"
	"math"
	"slices"

	"github.com/gangline/gangline/sim/trace"
)

// Index is what jobs are ordered by, the least first.
type Index int

// The indices.
const (
	// Remaining is the time that a job still needs: SRTF.
	Remaining Index = iota
	// Gittins is the Gittins index (J. C. Gittins, 1979; inverted, so that less is better), times the GPUs: of all times for
	// which a job may be run on, the least ratio of what that is expected to take and of the chance that the job ends in it.
	// On one machine, without costs, no order has a lower average that knows the distribution of lengths, but no length.
	// The distribution is that of the trace's own jobs of as many GPUs, known beforehand, which no scheduler can know.
	Gittins
)

// Config is the cluster and what stopping costs.
type Config struct {
	Nodes, PerNode int     // GPUs
	Restart        float64 // seconds that a job that was stopped, or moved, loses when it runs again
	Tick           float64 // seconds; above 0
	Index          Index
}

// Result is of completion times in seconds: from submission to end.
type Result struct {
	Avg, P50, P99 float64
	Wait          float64 // average of what is not service
	Stops         int     // of running jobs
}

// task is a job of the trace.
type task struct {
	gpus           int
	submit, length float64 // seconds
	had, owed      float64 // service until now; what is left of a restart
	end            float64
	done           bool
	nodes          []int // where it runs; nil: it does not
	ran            bool
	index          float64
}

// world is one run.
type world struct {
	Config
	now   float64
	jobs  []*task // by submission
	come  int     // how many of them have been submitted
	alive []*task // of those
	lives map[int]*lives
	stops int
}

// Run runs all jobs to their ends. They must be sorted by submission, and none larger than the cluster.
func Run(cfg Config, jobs []trace.Job) Result {
	w := &world{Config: cfg, lives: livesOf(jobs)}
	for i := range jobs {
		j := &jobs[i]
		w.jobs = append(w.jobs, &task{gpus: int(j.GPUs), submit: j.Submit.Seconds(), length: j.Length.Seconds()})
	}
	for w.come < len(w.jobs) || len(w.alive) > 0 {
		w.pass(w.next())
		w.decide()
	}
	return w.result()
}

// next is the time of the next arrival, end or tick.
func (w *world) next() float64 {
	at := math.Inf(1)
	if w.come < len(w.jobs) {
		at = w.jobs[w.come].submit
	}
	for _, t := range w.alive {
		if t.nodes != nil {
			at = min(at, w.now+t.owed+t.length-t.had)
		}
	}
	if len(w.alive) > 0 && w.Index != Remaining { // what is left only falls: nothing changes in between
		at = min(at, (math.Floor(w.now/w.Tick)+1)*w.Tick)
	}
	return at
}

// pass lets time pass: jobs get on, end and come.
func (w *world) pass(at float64) {
	const little = 1e-6 // seconds, of rounding
	for _, t := range w.alive {
		if t.nodes == nil {
			continue
		}
		lost := min(t.owed, at-w.now)
		t.owed -= lost
		if t.had += at - w.now - lost; t.had >= t.length-little {
			t.end, t.done = at, true
		}
	}
	w.now = at
	w.alive = slices.DeleteFunc(w.alive, func(t *task) bool { return t.done })
	for w.come < len(w.jobs) && w.jobs[w.come].submit <= at {
		w.alive = append(w.alive, w.jobs[w.come])
		w.come++
	}
}

// decide says who runs from now on, and where.
func (w *world) decide() {
	for _, t := range w.alive {
		t.index = t.length - t.had
		if w.Index == Gittins {
			t.index = w.lives[t.gpus].gittins(t.had) * float64(t.gpus)
		}
	}
	slices.SortStableFunc(w.alive, func(a, b *task) int { return cmp.Compare(a.index, b.index) })
	free, held := make([]int, w.Nodes), make([]bool, w.Nodes)
	for i := range free {
		free[i] = w.PerNode
	}
	for _, t := range w.alive {
		for _, n := range t.nodes {
			held[n] = true
		}
	}
	for _, t := range w.alive {
		nodes := t.nodes
		if nodes == nil || !fits(t, nodes, free, w.PerNode) {
			nodes = w.place(t, free, held)
		}
		if t.nodes != nil && !slices.Equal(nodes, t.nodes) {
			w.stops++
		}
		if nodes != nil && t.ran && !slices.Equal(nodes, t.nodes) {
			t.owed = w.Restart
		}
		t.nodes, t.ran = nodes, t.ran || nodes != nil
		for _, n := range nodes {
			free[n] -= min(t.gpus, w.PerNode)
		}
	}
}

// fits reports whether a job may have these nodes.
func fits(t *task, nodes, free []int, most int) bool {
	return !slices.ContainsFunc(nodes, func(n int) bool { return free[n] < min(t.gpus, most) })
}

// place finds nodes for a job, or nil: best fit, and for whole nodes those first on which nobody ran.
func (w *world) place(t *task, free []int, held []bool) []int {
	if t.gpus <= w.PerNode {
		best := -1
		for n := range free {
			if free[n] >= t.gpus && (best < 0 || free[n] < free[best]) {
				best = n
			}
		}
		if best < 0 {
			return nil
		}
		return []int{best}
	}
	var nodes []int
	for _, taken := range []bool{false, true} {
		for n := range free {
			if len(nodes)*w.PerNode < t.gpus && free[n] == w.PerNode && held[n] == taken {
				nodes = append(nodes, n)
			}
		}
	}
	if len(nodes)*w.PerNode < t.gpus {
		return nil
	}
	return nodes
}

func (w *world) result() Result {
	r := Result{Stops: w.stops}
	all := make([]float64, 0, len(w.jobs))
	for _, t := range w.jobs {
		all = append(all, t.end-t.submit)
		r.Avg += (t.end - t.submit) / float64(len(w.jobs))
		r.Wait += (t.end - t.submit - t.length) / float64(len(w.jobs))
	}
	slices.Sort(all)
	r.P50, r.P99 = all[len(all)/2], all[len(all)*99/100]
	return r
}
