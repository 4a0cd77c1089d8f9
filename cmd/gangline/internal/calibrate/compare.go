package calibrate

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// Result is a real run beside two simulated ones. Times are seconds.
type Result struct {
	Jobs  int `json:"jobs"`
	Nodes int `json:"nodes"`
	GPUs  int `json:"gpus"`

	// Measured on the cluster, and given to the simulator.
	Decide float64 `json:"decide_s"` // median from what lets a job start (its submission, another's end) to its start
	Launch float64 `json:"launch_s"` // mean from a job's start to the moment when all its processes run
	Spread float64 `json:"launch_spread"`
	End    float64 `json:"end_s"` // mean from its processes' end to the moment when the cluster knows

	// Stalled is for how long, in all, the leader answered late. It is not given to the simulator: a busy machine adds up
	// to so much to every completion time.
	Stalled float64 `json:"stalled_s"`

	Real      Times `json:"real"`
	Predicted Times `json:"predicted"` // the lengths that jobs were to have, and the measured costs as averages
	Replayed  Times `json:"replayed"`  // for each job the time that it held its GPUs: only the waits are simulated

	PredictedError float64 `json:"predicted_avg_jct_error"` // of the average completion time; 0.01: 1 % too long
	ReplayedError  float64 `json:"replayed_avg_jct_error"`
}

// Times are averages of one run.
type Times struct {
	AvgJCT   float64 `json:"avg_jct_s"`
	P50JCT   float64 `json:"p50_jct_s"`
	P99JCT   float64 `json:"p99_jct_s"`
	Makespan float64 `json:"makespan_s"`
}

// Compare runs the workload in the simulator and compares it with what was measured.
func Compare(c Config, run *Run) (*Result, error) {
	jobs := run.Jobs
	r := &Result{Jobs: len(jobs), Nodes: c.Nodes, GPUs: c.Nodes * c.GPUs, Real: measured(jobs), Stalled: run.Stalled.Seconds()}
	decide := decisions(jobs)
	var launches []float64
	held := make([]time.Duration, len(jobs))
	asTold := make([]time.Duration, len(jobs))
	sum, logs, squares := 0.0, 0.0, 0.0
	for i, j := range jobs {
		l := max(j.Began.Sub(j.Started), time.Microsecond).Seconds()
		launches = append(launches, l)
		sum += j.Finish.Sub(j.Ended).Seconds()
		// What sleeps longer than it was told to (a busy machine) is a cost of ending.
		sum += (j.Ended.Sub(j.Began) - j.Length).Seconds()
		logs += math.Log(l)
		squares += math.Log(l) * math.Log(l)
		held[i], asTold[i] = j.Finish.Sub(j.Started)+decide, j.Length
	}
	n := float64(len(jobs))
	r.Decide, r.End = decide.Seconds(), max(sum/n, 0)
	for _, l := range launches {
		r.Launch += l / n
	}
	r.Spread = math.Sqrt(max(squares/n-logs/n*logs/n, 0))
	cond := &replay.Conditions{
		Start: replay.StartCosts{Launch: seconds(r.Launch + r.Decide), Spread: r.Spread},
		Stop:  replay.StopCosts{Exit: seconds(r.End)}, Lease: time.Minute,
	}
	var err error
	if r.Predicted, err = c.simulate(jobs, asTold, cond); err != nil {
		return nil, err
	}
	if r.Replayed, err = c.simulate(jobs, held, nil); err != nil {
		return nil, err
	}
	r.PredictedError = r.Predicted.AvgJCT/r.Real.AvgJCT - 1
	r.ReplayedError = r.Replayed.AvgJCT/r.Real.AvgJCT - 1
	return r, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// measured are the real run's averages.
func measured(jobs []*Job) Times {
	var jct []float64
	first, last, sum := jobs[0].Submitted, jobs[0].Finish, 0.0
	for _, j := range jobs {
		jct = append(jct, j.Finish.Sub(j.Submitted).Seconds())
		sum += j.Finish.Sub(j.Submitted).Seconds()
		if j.Submitted.Before(first) {
			first = j.Submitted
		}
		if j.Finish.After(last) {
			last = j.Finish
		}
	}
	slices.Sort(jct)
	at := func(q float64) float64 { return jct[int(q*float64(len(jct)-1))] }
	return Times{AvgJCT: sum / float64(len(jobs)), P50JCT: at(0.5), P99JCT: at(0.99), Makespan: last.Sub(first).Seconds()}
}

// decisions is the median time from the last moment at which something changed for a job that could start (it was
// submitted, or another one gave its GPUs back) to its start. The median: jobs that are passed over for good reasons
// start long after the last change.
func decisions(jobs []*Job) time.Duration {
	var all []time.Duration
	for _, j := range jobs {
		since := j.Started.Sub(j.Submitted)
		for _, o := range jobs {
			if d := j.Started.Sub(o.Finish); o != j && d >= 0 {
				since = min(since, d)
			}
		}
		all = append(all, max(since, 0))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// simulate runs the jobs as they were submitted, with some lengths.
func (c *Config) simulate(jobs []*Job, lengths []time.Duration, cond *replay.Conditions) (Times, error) {
	var nodes []trace.Node
	for i := range c.Nodes {
		nodes = append(nodes, trace.Node{Name: fmt.Sprint("n", i), GPUs: int32(c.GPUs), Type: "H100"}) //nolint:gosec // at most 64
	}
	first := jobs[0].Submitted
	for _, j := range jobs {
		if j.Submitted.Before(first) {
			first = j.Submitted
		}
	}
	all := make([]trace.Job, 0, len(jobs))
	for i, j := range jobs {
		all = append(all, trace.Job{
			ID: fmt.Sprint(j.ID), Submit: j.Submitted.Sub(first), Length: lengths[i], Guess: lengths[i],
			GPUs: int32(j.GPUs), Milli: 1000, User: user, Queue: queue, //nolint:gosec // at most 4096
		})
	}
	slices.SortStableFunc(all, func(a, b trace.Job) int { return cmp.Compare(a.Submit, b.Submit) })
	cfg := replay.DefaultConfig()
	cfg.Conditions, cfg.Seed, cfg.Check = cond, c.Seed, true
	rep, err := replay.Run(cfg, replay.InMemory(all, nodes))
	if err != nil {
		return Times{}, err
	}
	if rep.Done != len(jobs) {
		return Times{}, fmt.Errorf("the simulator finished %d of %d jobs", rep.Done, len(jobs))
	}
	return Times{AvgJCT: rep.AvgJCT, P50JCT: rep.P50JCT, P99JCT: rep.P99JCT, Makespan: rep.Makespan}, nil
}

// WriteJSON writes the result as one JSON object on one line. It returns the error of writing.
func (r *Result) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// WriteText writes the result for people. It returns the error of writing.
func (r *Result) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%d jobs on %d nodes with %d GPUs; a decision took %.0f ms, a launch %.0f ms (spread %.2f), an end %.0f ms; the leader was late by %.0f ms in all\n\n",
		r.Jobs, r.Nodes, r.GPUs, 1000*r.Decide, 1000*r.Launch, r.Spread, 1000*r.End, 1000*r.Stalled)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tavg JCT\tp50\tp99\tmakespan\terror of avg\t")
	row := func(name string, x *Times, err string) {
		fmt.Fprintf(t, "%s\t%.3f s\t%.3f s\t%.3f s\t%.2f s\t%s\t\n", name, x.AvgJCT, x.P50JCT, x.P99JCT, x.Makespan, err)
	}
	row("the cluster", &r.Real, "")
	row("predicted", &r.Predicted, fmt.Sprintf("%+.2f %%", 100*r.PredictedError))
	row("replayed", &r.Replayed, fmt.Sprintf("%+.2f %%", 100*r.ReplayedError))
	return t.Flush()
}
