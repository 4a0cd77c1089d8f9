package replay

import (
	"slices"

	"github.com/gangline/gangline/sim/trace"
)

// Bounds of what a report remembers of jobs that have ended.
const (
	exactJobs   = 1 << 20 // default of Config.Exact
	sketchError = 0.001   // of a quantile beyond that, as a part of it
	sketchBins  = 1 << 15 // spans 28 decades at that error, from a microsecond to ages: none is ever collapsed
	maxQueues   = 1 << 14 // told apart; the jobs of further ones are under otherQueues
	otherQueues = "(others)"
)

// tally adds up jobs as they end, by queue, in bounded memory: the times of each job up to a number of jobs, and a
// sketch of their distribution beyond it.
type tally struct {
	exact  int // jobs whose times are kept; 0: sketches have taken over
	ended  int
	rho    times // finish-time fairness
	queues map[string]*figures
	no     []Refusal // the first few
	window *span     // of the queues' GPU time
}

// figures are of the jobs of a queue, or of all.
type figures struct {
	jobs, refused, failed, stops, stopped int
	most                                  int32 // stops of one job
	jct, wait                             times
	meter                                 meter // of a queue
}

func newTally(exact int, window *span) *tally {
	return &tally{exact: exact, queues: map[string]*figures{}, window: window}
}

// maxRefusals bounds the refused jobs that a report names.
const maxRefusals = 5

// refuse counts a job that the cluster does not take.
func (t *tally) refuse(job *trace.Job, why string) {
	t.of(job.Queue).refused++
	if len(t.no) < maxRefusals {
		t.no = append(t.no, Refusal{Job: job.ID, Why: why})
	}
}

// of finds the figures of a queue.
func (t *tally) of(queue string) *figures {
	f := t.queues[queue]
	if f == nil && len(t.queues) >= maxQueues {
		queue = otherQueues
		f = t.queues[queue]
	}
	if f == nil {
		f = &figures{meter: meter{window: t.window}}
		if t.exact == 0 {
			f.sketch()
		}
		t.queues[queue] = f
	}
	return f
}

// end takes in a job that has ended.
func (t *tally) end(a *attempt, jct, wait float64) {
	f := a.class.figures
	f.halt(a)
	f.jct.add(jct)
	f.wait.add(wait)
	t.rho.add(a.rho)
	if t.ended++; t.exact > 0 && t.ended > t.exact {
		t.exact = 0
		t.rho.compress()
		for _, f := range t.queues { // any order: each is alone
			f.sketch()
		}
	}
}

// fail takes in a job that has failed for good.
func (t *tally) fail(a *attempt) {
	f := t.of(a.job.Queue)
	f.failed++
	f.halt(a)
}

// halt takes in how often a job was stopped, whether it has ended or not.
func (f *figures) halt(a *attempt) {
	f.stops += int(a.stops)
	f.most = max(f.most, a.stops)
	if a.stops > 0 {
		f.stopped++
	}
}

func (f *figures) sketch() {
	f.jct.compress()
	f.wait.compress()
}

// names are the queues in order.
func (t *tally) names() []string {
	names := make([]string, 0, len(t.queues))
	for q := range t.queues { // any order: sorted below
		names = append(names, q)
	}
	slices.Sort(names)
	return names
}

// all is the sum of all queues.
func (t *tally) all() *figures {
	sum := &figures{}
	if t.exact == 0 {
		sum.sketch()
	}
	for _, q := range t.names() {
		f := t.queues[q]
		sum.jobs += f.jobs
		sum.refused += f.refused
		sum.failed += f.failed
		sum.stops += f.stops
		sum.stopped += f.stopped
		sum.most = max(sum.most, f.most)
		sum.jct.merge(&f.jct)
		sum.wait.merge(&f.wait)
	}
	return sum
}
