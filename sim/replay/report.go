package replay

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Report is what a replay measured. It is a function of config and trace alone, but for Speed. Times are seconds of
// virtual time; names are those of `gangline sim run --json`.
type Report struct {
	Order   string `json:"order"`
	Partial bool   `json:"partial"` // it was interrupted: what follows is of the time until then
	Nodes   int    `json:"nodes"`
	GPUs    int64  `json:"gpus"`
	Jobs    int    `json:"jobs"`     // submitted or refused; jobs without GPUs are not among them
	Skipped int    `json:"skipped"`  // rows left out: jobs without GPUs, and malformed ones
	Refused int    `json:"refused"`  // larger than the cluster, or in a queue that the policy does not have
	Done    int    `json:"finished"` // the averages below are of these
	Left    int    `json:"unfinished"`

	AvgJCT   float64 `json:"avg_jct_s"` // from submission to the end
	P50JCT   float64 `json:"p50_jct_s"`
	P90JCT   float64 `json:"p90_jct_s"`
	P99JCT   float64 `json:"p99_jct_s"`
	Makespan float64 `json:"makespan_s"` // from the first submission to the last end
	AvgWait  float64 `json:"avg_wait_s"` // of JCT, what is not service: all waits, restart costs and grace
	P50Wait  float64 `json:"p50_wait_s"`
	P90Wait  float64 `json:"p90_wait_s"`
	P99Wait  float64 `json:"p99_wait_s"`

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
	MostStops   int32     `json:"preemptions_of_one_job"` // at most

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
}

// Speed is how fast a replay was, as its caller measured it.
type Speed struct {
	Wall    time.Duration
	PeakRSS int64 // bytes; 0: not known
}

// summary gathers the parts of a replay.
type summary struct {
	rep   Report
	meter meter
	jobs  []attempt
	hash  uint64
	end   cluster.Time
}

func newSummary(window span, without, malformed int) *summary {
	return &summary{rep: Report{Skipped: without + malformed}, meter: meter{window: window}, end: genesis}
}

// add takes in a part that has been played.
func (s *summary) add(w *world, nodes []Node) {
	r := &s.rep
	r.Order = string(w.state.Policy().Order)
	r.Nodes += len(nodes)
	r.GPUs += capacity(nodes)
	r.Commands += w.index
	r.Events += w.fired
	r.Rejected += w.rejected
	s.hash = s.hash*31 + w.state.Hash()
	for i := range w.jobs {
		if a := &w.jobs[i]; a.began != 0 && w.real == nil {
			w.measure(a)
		}
	}
	if w.real != nil {
		w.real.addTo(r)
	}
	s.meter.add(&w.meter)
	s.jobs = append(s.jobs, w.jobs...)
}

// report puts the figures together.
func (s *summary) report() *Report {
	r := &s.rep
	byQueue := map[string][]*attempt{}
	all := make([]*attempt, 0, len(s.jobs))
	for i := range s.jobs {
		a := &s.jobs[i]
		all = append(all, a)
		byQueue[a.job.Queue] = append(byQueue[a.job.Queue], a)
		switch {
		case a.refused:
			r.Refused++
		case a.failed != 0:
			r.Failed++
		case a.ended == 0:
			r.Left++
		}
		if a.stops > 0 {
			r.Preempted++
		}
		r.MostStops = max(r.MostStops, a.stops)
		s.end = max(s.end, a.ended)
	}
	f := figuresOf(all)
	r.Jobs, r.Done, r.Preemptions = len(s.jobs), len(f.jct), f.stops
	r.AvgJCT, r.P50JCT, r.P90JCT, r.P99JCT = mean(f.jct), quantile(f.jct, 0.5), quantile(f.jct, 0.9), quantile(f.jct, 0.99)
	r.AvgWait, r.P50Wait, r.P90Wait, r.P99Wait = mean(f.wait), quantile(f.wait, 0.5), quantile(f.wait, 0.9), quantile(f.wait, 0.99)
	r.AvgFairness, r.P50Fairness, r.P90Fairness = mean(f.rho), quantile(f.rho, 0.5), quantile(f.rho, 0.9)
	r.P99Fairness, r.MaxFairness = quantile(f.rho, 0.99), quantile(f.rho, 1)
	r.Makespan = max(s.end.Sub(s.meter.window.from).Seconds(), 0)
	if room := float64(r.GPUs) * s.meter.window.within(s.meter.window); room > 0 {
		r.Allocation = s.meter.held / room
		r.Goodput = (s.meter.held - s.meter.wasted) / room
	}
	r.Lost = s.meter.lost
	if r.Failures != nil {
		r.LostGPU = s.meter.lostGPU()
	}
	r.PerQueue = map[string]QueueReport{}
	for q, jobs := range byQueue { // any order: each is judged alone
		f := figuresOf(jobs)
		r.PerQueue[q] = QueueReport{
			Jobs: len(jobs), Done: len(f.jct), AvgJCT: mean(f.jct), P99JCT: quantile(f.jct, 0.99),
			AvgWait: mean(f.wait), P99Wait: quantile(f.wait, 0.99), Preemptions: f.stops,
		}
	}
	r.StateHash = fmt.Sprintf("%016x", s.hash)
	return r
}

// figures are the times of jobs that have ended, in seconds, sorted.
type figures struct {
	jct, wait []float64
	rho       []float64 // finish-time fairness
	stops     int
}

func figuresOf(jobs []*attempt) figures {
	var f figures
	for _, a := range jobs {
		f.stops += int(a.stops)
		if a.ended == 0 {
			continue
		}
		jct := a.ended.Sub(genesis) - a.job.Submit
		f.jct = append(f.jct, jct.Seconds())
		f.wait = append(f.wait, (jct - a.job.Length).Seconds())
		f.rho = append(f.rho, a.rho)
	}
	slices.Sort(f.rho)
	slices.Sort(f.jct)
	slices.Sort(f.wait)
	return f
}

// mean is the average, or 0 of nothing.
func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum / math.Max(float64(len(x)), 1)
}

// quantile is the value of a sorted list below which a part of it lies, between neighbours in proportion, or 0 of nothing.
func quantile(x []float64, q float64) float64 {
	if len(x) == 0 {
		return 0
	}
	at := q * float64(len(x)-1)
	i := int(at)
	if i+1 == len(x) {
		return x[i]
	}
	return x[i] + float64((at-float64(i))*(x[i+1]-x[i])) // rounded before it is added, on every machine alike
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
