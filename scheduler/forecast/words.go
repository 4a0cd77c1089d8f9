package forecast

import (
	"fmt"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner"
)

// Brief writes a duration as people say it: "40 s", "12 min", "2 h 10 min", "3 d 4 h".
func Brief(d time.Duration) string {
	two := func(a int64, unit string, b int64, small string) string {
		if b == 0 {
			return fmt.Sprintf("%d %s", a, unit)
		}
		return fmt.Sprintf("%d %s %d %s", a, unit, b, small)
	}
	if d >= time.Minute {
		d = d.Round(time.Minute)
	}
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(int64(d/time.Second), 0))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int64(d/time.Minute))
	case d < 24*time.Hour:
		return two(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "min")
	default:
		return two(int64(d/(24*time.Hour)), "d", int64(d%(24*time.Hour)/time.Hour), "h")
	}
}

// in writes when something is: "now" or "in 12 min".
func in(now, at cluster.Time) string {
	if at.Sub(now) < time.Second {
		return "now"
	}
	return "in " + Brief(at.Sub(now))
}

// Text says when a job is expected to start, such as "in about 2 h 10 min (in
// one of ten cases later than 3 h 40 min)".
func (e *Estimate) Text(now cluster.Time) string {
	switch {
	case e.P50 != 0 && e.P50.Sub(now) < time.Second && e.P90 != 0 && e.P90.Sub(now) < time.Second:
		return "now"
	case e.P50 != 0 && e.Runs <= 1, e.P50 != 0 && e.P90 != 0 && e.P90.Sub(now)*8 < e.P50.Sub(now)*9:
		return "in about " + Brief(e.P50.Sub(now))
	case e.P50 != 0 && e.P90 != 0:
		return fmt.Sprintf("in about %s (in one of ten cases later than in %s)", Brief(e.P50.Sub(now)), Brief(e.P90.Sub(now)))
	case e.P50 != 0:
		return fmt.Sprintf("in about %s (in one of ten cases later than in %s)", Brief(e.P50.Sub(now)), Brief(e.Until.Sub(now)))
	case e.Runs == 0:
		return "not estimated"
	case e.Basis == BasisNone:
		return "unknown: no job like those that run has ended yet, and they have no time limits"
	case e.Never:
		return "unknown: it does not start if the jobs that it waits for end as is expected of them"
	case e.Stuck:
		return "unknown: as things are, nothing is due to end that would make room for it"
	case e.Pace != 0:
		return fmt.Sprintf("later than in %s, in which %d of the %d jobs before it start; if it goes on so, in about %s",
			Brief(e.Until.Sub(now)), e.Passed, e.Ahead, Brief(e.Pace.Sub(now)))
	default:
		return "later than in " + Brief(e.Until.Sub(now))
	}
}

// Text says what an estimate goes by.
func (b Basis) Text() string {
	switch b {
	case BasisLearned:
		return "by what jobs like those that run have needed"
	case BasisLimits:
		return "by time limits alone: too few jobs have ended here to learn from"
	case BasisExact:
		return "by their exact lengths"
	default:
		return "by nothing: no job like those that run has ended yet, and they have no time limits"
	}
}

// Summary says in one line what would start a job sooner, and when it starts if
// nothing changes, such as "without the rack constraint: now; with 56 instead of 64
// GPUs: in 12 min; wait: 2 h 10 min".
func (a *Answer) Summary() string {
	if a.Fit != nil || a.Start.P50 != 0 && a.Start.P50.Sub(a.Now) < time.Second {
		return "starts now"
	}
	var parts []string
	for i := range a.Changes {
		parts = append(parts, a.Changes[i].Text(a.Now))
	}
	wait := "not known how long"
	switch {
	case a.Start.P50 != 0:
		wait = Brief(a.Start.P50.Sub(a.Now))
	case a.Start.Runs > 0 && a.Start.Basis != BasisNone && !a.Start.Stuck:
		wait = "more than " + Brief(a.Start.Until.Sub(a.Now))
	}
	return strings.Join(append(parts, "wait: "+wait), "; ")
}

// Text is the change and when the job would start with it.
func (c *Change) Text(now cluster.Time) string { return c.What + ": " + c.When(now) }

// When is when the job would start with the change, such as "in 12 min".
func (c *Change) When(now cluster.Time) string {
	if at := c.At(now); at != 0 {
		return in(now, at)
	}
	return "not known when"
}

// stopsText names jobs that would be stopped, and what that would cost.
func stopsText(stops []planner.Evict) string {
	const few = 3
	var names []string
	cost := int64(0)
	for i := range stops {
		cost += stops[i].Cost
		if i < few {
			names = append(names, fmt.Sprint(stops[i].Job))
		}
	}
	more := ""
	if len(stops) > few {
		more = fmt.Sprintf(" and %d more", len(stops)-few)
	}
	jobs := "jobs "
	if len(stops) == 1 {
		jobs = "job "
	}
	return fmt.Sprintf("%s%s%s at a cost of %.1f GPU-hours", jobs, strings.Join(names, ", "), more, GPUHours(cost))
}

// GPUHours converts a price of planner.Evict.
func GPUHours(cost int64) float64 { return float64(cost) / cluster.WholeGPU / 3_600_000 }

// HolderText says who has some of what is lacked, and until about when.
func HolderText(h *planner.Holder, gpuType string, now cluster.Time) string {
	of := ""
	if gpuType != "" {
		of = " " + gpuType
	}
	gpus := fmt.Sprintf("%g%s GPUs", float64(h.Milli)/cluster.WholeGPU, of)
	if h.Milli == cluster.WholeGPU {
		gpus = "1" + of + " GPU"
	}
	if h.Job == 0 {
		return fmt.Sprintf("jobs of queue %s: %s", h.Queue, gpus)
	}
	until := "nobody knows until when: it has no time limit, and too few like it have ended"
	switch {
	case h.Until == 0:
	case h.Limit:
		until = fmt.Sprintf("for at most another %s, by its time limit", Brief(h.Until.Sub(now)))
	default:
		until = fmt.Sprintf("for about another %s, as jobs like it need", Brief(h.Until.Sub(now)))
	}
	return fmt.Sprintf("job %d (user %s, queue %s): %s, %s", h.Job, h.User, h.Queue, gpus, until)
}
