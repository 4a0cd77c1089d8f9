package replay

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// Report is what a replay measured. It is a function of config and trace alone, but for Speed. Times are seconds of
// virtual time; names are those of `gangline sim run --json`.
type Report struct {
	Format  string `json:"format,omitempty"` // of the file of jobs, as its reader has told its caller, who sets this
	Order   string `json:"order"`
	Partial bool   `json:"partial"` // it was interrupted: what follows is of the time until then
	Nodes   int    `json:"nodes"`
	GPUs    int64  `json:"gpus"`
	Jobs    int    `json:"jobs"`     // submitted or refused; jobs without GPUs are not among them
	Skipped int    `json:"skipped"`  // rows left out: jobs without GPUs, and malformed ones
	Refused int    `json:"refused"`  // larger than the cluster, or in a queue that the policy does not have
	Done    int    `json:"finished"` // the averages below are of these
	Left    int    `json:"unfinished"`

	Refusals []Refusal `json:"refused_jobs,omitempty"` // the first of them, at most 5

	AvgJCT   float64 `json:"avg_jct_s"` // from submission to the end
	P50JCT   float64 `json:"p50_jct_s"`
	P90JCT   float64 `json:"p90_jct_s"`
	P99JCT   float64 `json:"p99_jct_s"`
	Makespan float64 `json:"makespan_s"` // from the first submission to the last end
	AvgWait  float64 `json:"avg_wait_s"` // of JCT, what is not service: all waits, restart costs and grace
	P50Wait  float64 `json:"p50_wait_s"`
	P90Wait  float64 `json:"p90_wait_s"`
	P99Wait  float64 `json:"p99_wait_s"`
	Inexact  float64 `json:"quantile_error,omitempty"` // of the quantiles, as a part of each: more jobs ended than Config.Exact

	Allocation  float64 `json:"gpu_allocation"` // GPU time held, of the cluster's, from the first submission to the last
	Goodput     float64 `json:"gpu_goodput"`    // GPU time of work, likewise
	Lost        float64 `json:"lost_gpu_s"`     // GPU time held for restarts and grace, in all
	Preemptions int     `json:"preemptions"`
	// Finish-time fairness, see world.fairness: of the jobs that have finished.
	AvgFairness float64   `json:"finish_time_fairness_avg"`
	P50Fairness float64   `json:"finish_time_fairness_p50"`
	P90Fairness float64   `json:"finish_time_fairness_p90"`
	P99Fairness float64   `json:"finish_time_fairness_p99"`
	MaxFairness float64   `json:"finish_time_fairness_max"`
	LostGPU     *LostGPU  `json:"lost_gpu_s_by,omitempty"` // with conditions: the lost GPU time, by cause
	Failures    *Failures `json:"failures,omitempty"`      // with conditions: what broke, and what it did
	Failed      int       `json:"failed"`                  // for good, of failures
	Preempted   int       `json:"preempted_jobs"`
	// Misjudged is the mean distance of the GPU time that jobs were expected to need when they came from what they needed,
	// in doublings: 1 is a factor of two. It is of the last jobs, as the cluster keeps it.
	Misjudged float64 `json:"prediction_error_doublings"`
	MostStops int32   `json:"preemptions_of_one_job"` // at most

	PerQueue map[string]QueueReport `json:"per_queue"`

	Commands  uint64 `json:"commands"`
	Rejected  int    `json:"refused_commands"` // of the scheduler's own: more than none is a fault of the scheduler
	Events    uint64 `json:"events"`
	StateHash string `json:"state_hash"` // of the last state, 16 hex digits; of all parts' together, if there are several
}

// QueueReport is a queue's part of a Report.
type QueueReport struct {
	Jobs        int     `json:"jobs"`
	Done        int     `json:"finished"`
	AvgJCT      float64 `json:"avg_jct_s"`
	P99JCT      float64 `json:"p99_jct_s"`
	AvgWait     float64 `json:"avg_wait_s"`
	P99Wait     float64 `json:"p99_wait_s"`
	Preemptions int     `json:"preemptions"`
	Allocation  float64 `json:"gpu_allocation"` // of the whole cluster's GPU time
	Goodput     float64 `json:"gpu_goodput"`    // likewise
}

// Speed is how fast a replay was, as its caller measured it.
type Speed struct {
	Wall    time.Duration
	PeakRSS int64 // bytes; 0: not known
}

// summary gathers the parts of a replay.
type summary struct {
	rep     Report
	window  span // in which jobs arrive; without an end until the last has come
	meter   meter
	tally   *tally
	hash    uint64
	end     cluster.Time
	learned uint64 // jobs of which Misjudged is the mean
}

func newSummary(exact int) *summary {
	s := &summary{window: span{genesis, genesis}, end: genesis}
	s.tally = newTally(exact, &s.window)
	s.meter.window = &s.window
	return s
}

// add takes in a part that has been played.
func (s *summary) add(w *world, nodes []trace.Node) {
	r := &s.rep
	r.Order = string(w.state.Policy().Order)
	r.Nodes += len(nodes)
	r.GPUs += trace.Capacity(nodes)
	r.Commands += w.index
	r.Events += w.fired
	r.Rejected += w.rejected
	s.hash = s.hash*31 + w.state.Hash()
	s.end = max(s.end, w.end)
	w.unfinished()
	w.state.EachHistory(func(_ cluster.Likeness, h *cluster.History) bool { // of all jobs, the first
		s.learned += h.Jobs
		r.Misjudged += (float64(h.Error)/1000 - r.Misjudged) * float64(h.Jobs) / float64(s.learned)
		return false
	})
	if w.real != nil {
		w.real.addTo(r)
	}
	s.meter.add(&w.meter)
}

// report puts the figures together.
func (s *summary) report() *Report {
	r := &s.rep
	r.StateHash = fmt.Sprintf("%016x", s.hash)
	r.Makespan = max(s.end.Sub(s.window.from).Seconds(), 0)
	room := float64(r.GPUs) * s.window.within(s.window)
	if room > 0 {
		r.Allocation = s.meter.held / room
		r.Goodput = (s.meter.held - s.meter.wasted) / room
	}
	r.Lost = s.meter.lost
	if r.Failures != nil {
		r.LostGPU = s.meter.lostGPU()
	}
	r.times(s.tally, room)
	return r
}

// unfinished adds what is known of jobs that have not ended.
func (w *world) unfinished() {
	for a := range w.jobs.All() {
		if a.began != 0 && w.real == nil {
			w.measure(a)
		}
		w.tally.of(a.job.Queue).halt(a)
	}
}

// Refusal says why the cluster did not take a job.
type Refusal struct {
	Job string `json:"job"` // its id in the file of jobs
	Why string `json:"why"`
}

// times takes the figures of jobs from a tally. Room is the GPU time that there was, in seconds.
func (r *Report) times(t *tally, room float64) {
	f := t.all()
	r.PerQueue = map[string]QueueReport{}
	r.Jobs, r.Refused, r.Failed, r.Done = f.jobs, f.refused, f.failed, f.jct.count()
	r.Left, r.Refusals = r.Jobs-r.Refused-r.Failed-r.Done, t.no
	r.Preemptions, r.Preempted, r.MostStops = f.stops, f.stopped, f.most
	var o sorter
	d := o.figured(&f.jct)
	r.AvgJCT, r.P50JCT, r.P90JCT, r.P99JCT = d.mean(), d.quantile(0.5), d.quantile(0.9), d.quantile(0.99)
	d = o.figured(&f.wait)
	r.AvgWait, r.P50Wait, r.P90Wait, r.P99Wait = d.mean(), d.quantile(0.5), d.quantile(0.9), d.quantile(0.99)
	rho := o.figured(&t.rho)
	r.AvgFairness, r.P50Fairness, r.P90Fairness = rho.mean(), rho.quantile(0.5), rho.quantile(0.9)
	r.P99Fairness, r.MaxFairness = rho.quantile(0.99), rho.quantile(1)
	if t.exact == 0 {
		r.Inexact = sketchError
	}
	for _, q := range t.names() {
		f := t.queues[q]
		x := QueueReport{Jobs: f.jobs, Done: f.jct.count(), Preemptions: f.stops}
		d := o.figured(&f.jct)
		x.AvgJCT, x.P99JCT = d.mean(), d.quantile(0.99)
		d = o.figured(&f.wait)
		x.AvgWait, x.P99Wait = d.mean(), d.quantile(0.99)
		if room > 0 {
			x.Allocation, x.Goodput = f.meter.held/room, (f.meter.held-f.meter.wasted)/room
		}
		r.PerQueue[q] = x
	}
}

// WriteJSON writes the report as one JSON object on one line. With a Speed that the caller measured the object also has
// wall_s, jobs_per_s, events_per_s and peak_rss_mib, and differs from run to run. It returns the error of writing.
func (r *Report) WriteJSON(w io.Writer, sp *Speed) error {
	enc := json.NewEncoder(w)
	if sp == nil {
		return enc.Encode(r)
	}
	wall := sp.seconds()
	return enc.Encode(struct {
		*Report
		Wall   float64 `json:"wall_s"`
		Jobs   float64 `json:"jobs_per_s"`
		Events float64 `json:"events_per_s"`
		RSS    float64 `json:"peak_rss_mib"`
	}{r, wall, float64(r.Jobs) / wall, float64(r.Events) / wall, float64(sp.PeakRSS) / mebibyte})
}

func (sp *Speed) seconds() float64 { return math.Max(sp.Wall.Seconds(), 1e-9) }
