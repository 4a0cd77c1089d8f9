package assertion

import (
	"math"
	"slices"
	"time"

	"github.com/gangline/gangline/sim/replay"
)

// Collector watches one replay for what some quantities need. Its memory grows with the jobs that are asked about.
type Collector struct {
	groups map[group]*figures
	// since is when jobs last began to be without GPUs, by row; only if somebody asks how long that was.
	since map[int]time.Duration
}

// group is some of the jobs.
type group struct {
	scope Scope
	name  string
}

// figures are of a group's jobs.
type figures struct {
	counts  map[string]float64
	spreads map[string][]float64 // by measure; only those that are asked for
	times   map[string]float64   // of a single job; absent: not yet
	longest time.Duration
}

// Collector returns who watches the replay of one of the file's runs.
func (f *File) Collector(run string) *Collector {
	c := &Collector{groups: map[group]*figures{}}
	f.each(run, func(q *Quantity) {
		g := group{q.Scope, q.Name}
		if c.groups[g] == nil {
			c.groups[g] = &figures{counts: map[string]float64{}, spreads: map[string][]float64{}, times: map[string]float64{}}
		}
		if q.metric.spread {
			c.groups[g].spreads[q.metric.measure] = []float64{}
		}
		if q.metric.measure == "longest_wait" {
			c.since = map[int]time.Duration{}
		}
	})
	return c
}

// each calls f for all quantities of a run.
func (f *File) each(run string, do func(*Quantity)) {
	for i := range f.Assertions {
		a := &f.Assertions[i]
		for _, q := range []*Quantity{&a.Left, a.Other} {
			if q != nil && q.Run == run {
				do(q)
			}
		}
	}
}

// Watch returns what the replay must tell.
func (c *Collector) Watch() *replay.Watch {
	w := &replay.Watch{Outcome: c.outcome}
	if c.since != nil {
		w.Hold = func(h *replay.Hold) {
			if h.Why != replay.Finished {
				c.since[h.Row] = h.To
			}
		}
		w.Decision = func(d *replay.Decision) {
			if !d.Stop {
				c.waited(d.Row, d.At, groupsOf(d.Job.Queue, d.Job.User, d.Job.ID), d.Job.Submit)
				delete(c.since, d.Row)
			}
		}
	}
	return w
}

func groupsOf(queue, user, id string) [4]group {
	return [4]group{{}, {Queue, queue}, {User, user}, {Job, id}}
}

// waited takes in that a job was without GPUs until a time.
func (c *Collector) waited(row int, until time.Duration, groups [4]group, from time.Duration) {
	if at, known := c.since[row]; known {
		from = at
	}
	for _, g := range groups {
		if f := c.groups[g]; f != nil {
			f.longest = max(f.longest, until-from)
		}
	}
}

// outcome takes in what became of a job.
func (c *Collector) outcome(o *replay.Outcome) error {
	groups := groupsOf(o.Job.Queue, o.Job.User, o.Job.ID)
	if o.State == replay.Unfinished && c.since != nil {
		if _, known := c.since[o.Row]; known || o.Started < 0 {
			c.waited(o.Row, o.Now, groups, o.Job.Submit)
		}
	}
	for _, g := range groups {
		if f := c.groups[g]; f != nil {
			f.add(o)
		}
	}
	return nil
}

func (f *figures) add(o *replay.Outcome) {
	f.counts["jobs"]++
	f.counts[o.State]++
	f.counts["preemptions"] += float64(o.Preemptions)
	if o.Preemptions > 0 {
		f.counts["preempted_jobs"]++
	}
	one := map[string]float64{}
	if o.Started >= 0 {
		one["first_wait"] = (o.Started - o.Job.Submit).Seconds()
		one["started"] = o.Started.Seconds()
	}
	if o.Ended >= 0 {
		one["ended"] = o.Ended.Seconds()
	}
	if o.State == replay.Finished {
		one["wait"], one["jct"], one["fairness"] = o.Wait().Seconds(), o.JCT().Seconds(), o.Fairness
	}
	f.times = one
	for name := range f.spreads { // any order: each is alone
		if v, ok := one[name]; ok {
			f.spreads[name] = append(f.spreads[name], v)
		}
	}
}

// value is a quantity of the run that was watched, whose report is given, or why there is none.
func (c *Collector) value(q *Quantity, rep *replay.Report) (v float64, problem string) {
	f := c.groups[group{q.Scope, q.Name}]
	m := q.metric
	switch {
	case q.Scope != All && f.counts["jobs"] == 0:
		return 0, "the workload has no " + q.Scope.String() + " " + q.Name
	case m.spread:
		if len(f.spreads[m.measure]) == 0 {
			return 0, "no such job " + map[bool]string{true: "started", false: "finished"}[m.measure == "first_wait"]
		}
		return quantile(f.spreads[m.measure], m), ""
	case m.measure == "makespan":
		return rep.Makespan, ""
	case m.measure == "gpu_allocation" && q.Scope == All:
		return rep.Allocation, ""
	case m.measure == "gpu_goodput" && q.Scope == All:
		return rep.Goodput, ""
	case m.measure == "gpu_allocation":
		return rep.PerQueue[q.Name].Allocation, ""
	case m.measure == "gpu_goodput":
		return rep.PerQueue[q.Name].Goodput, ""
	case m.measure == "longest_wait":
		return f.longest.Seconds(), ""
	case measures[m.measure].one || m.measure == "started" || m.measure == "ended":
		v, ok := f.times[m.measure]
		if !ok {
			return 0, "it has not " + map[bool]string{true: "started", false: "finished"}[m.measure == "started" || m.measure == "first_wait"]
		}
		return v, ""
	default:
		return f.counts[m.measure], ""
	}
}

// quantile is the mean or a quantile of some values, between neighbours in proportion as in replay.Report.
func quantile(values []float64, m metric) float64 {
	slices.Sort(values)
	if m.mean {
		sum := 0.0
		for _, v := range values {
			sum += v
		}
		return sum / float64(len(values))
	}
	at := m.quantile * float64(len(values)-1)
	i := int(math.Floor(at))
	if i+1 >= len(values) {
		return values[len(values)-1]
	}
	return values[i] + float64((at-float64(i))*(values[i+1]-values[i]))
}
