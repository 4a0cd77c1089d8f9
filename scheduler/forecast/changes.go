package forecast

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner"
)

// Bounds of what is tried.
const (
	maxTries   = 4   // changes that are tried by running forward, the most promising first
	maxQueues  = 512 // other queues that are looked at
	changeRuns = 4   // runs for each change
	// worthwhile is by which part of the wait a change must shorten it to be told.
	worthwhile = 10
)

// candidate is a change that may help.
type candidate struct {
	what string
	edit func(spec *cluster.JobSpec)
	kind kind
}

// kind is what a candidate changes. Of a kind, the first that starts now is enough.
type kind uint8

const (
	kindAlone kind = 0 // of a kind of its own
	kindCPU   kind = 1
	kindMem   kind = 2
	kindSize  kind = 3
)

// lookForChanges tries what may help: what lets the job start now is an answer,
// the rest is to be found out by running forward.
func (c *Case) lookForChanges(x *planner.Index) {
	a := &c.answer
	var done [kindSize + 1]bool
	for _, cand := range c.candidates(x) {
		if done[cand.kind] {
			continue
		}
		spec := *a.Job.Spec
		spec.Array = cluster.ArraySpec{}
		cand.edit(&spec)
		j, refused := submitted(c.s, c.now, &spec, a.Job.User)
		if refused != "" {
			continue
		}
		if j.ID = a.Job.ID; c.question.Spec == nil {
			j.Array = 0
		}
		ch := Change{What: cand.what, Spec: &spec}
		if fit, ok := x.Fits(j); ok {
			ch.Fit = &fit
			ch.What = strings.Replace(ch.What, anyType, fit.GPUType+" GPUs", 1)
			a.Changes = append(a.Changes, ch)
			done[cand.kind] = cand.kind != kindAlone
			continue
		}
		if len(c.tries) < maxTries {
			place, _, _ := x.Position(j)
			c.tries = append(c.tries, try{ch, place})
		}
	}
	c.addQueue(x)
	c.addPriority(x)
}

// anyType stands for the type that a job would get without its wish for one.
const anyType = "any type of GPUs"

// candidates lists what may help against what binds, the least of a change first.
func (c *Case) candidates(x *planner.Index) []candidate {
	a := &c.answer
	spec, why := a.Job.Spec, &a.Why
	room := why.Binding >= planner.BindType && why.Binding != planner.BindAfter
	var out []candidate
	add := func(on bool, what string, edit func(*cluster.JobSpec)) {
		if on {
			out = append(out, candidate{what: what, edit: edit})
		}
	}
	add(why.Binding == planner.BindAfter, "without waiting for other jobs (after)", func(s *cluster.JobSpec) { s.After = nil })
	add(why.Binding == planner.BindQuota, "as preemptible: true", func(s *cluster.JobSpec) { s.Preemptible = true })
	if limit := c.shortLimit(); limit > 0 {
		add(true, "with a time limit of "+Brief(limit), func(s *cluster.JobSpec) { s.TimeLimit = limit })
	}
	add(room && spec.Topology.Required, fmt.Sprintf("without the %s constraint (preferred, not required)", spec.Topology.Level),
		func(s *cluster.JobSpec) { s.Topology.Required = false })
	add(room && spec.GPUsPerNode > 0, "without gpus_per_node", func(s *cluster.JobSpec) { s.GPUsPerNode = 0 })
	add(room && len(spec.GPUTypes) > 0 || why.Binding == planner.BindLimit && why.GPUType != "" && len(spec.GPUTypes) > 0,
		"on "+anyType, func(s *cluster.JobSpec) { s.GPUTypes = nil })
	add(why.Binding == planner.BindLabel && len(spec.Selector) > 0, "without the node selector", func(s *cluster.JobSpec) { s.Selector = nil })
	if why.Binding == planner.BindCPU || why.Binding == planner.BindShape {
		out = append(out, leaner(spec)...)
	}
	return append(out, c.smaller(x)...)
}

// leaner asks for less beside each GPU, the least less first.
func leaner(spec *cluster.JobSpec) (out []candidate) {
	for _, part := range []int64{75, 50, 25} {
		if cpu := spec.CPUPerGPU * part / 100 / 1000 * 1000; cpu > 0 {
			out = append(out, candidate{fmt.Sprintf("with cpus_per_gpu %d instead of %g", cpu/1000, float64(spec.CPUPerGPU)/1000), func(s *cluster.JobSpec) { s.CPUPerGPU = cpu }, kindCPU})
		}
		if mem := spec.MemPerGPU * part / 100 >> 30 << 30; mem > 0 {
			out = append(out, candidate{fmt.Sprintf("with memory_per_gpu %dGiB instead of %dGiB", mem>>30, spec.MemPerGPU>>30), func(s *cluster.JobSpec) { s.MemPerGPU = mem }, kindMem})
		}
	}
	return out
}

// smaller asks for fewer GPUs: as many as fit now, and half.
func (c *Case) smaller(x *planner.Index) (out []candidate) {
	spec := c.answer.Job.Spec
	least := spec.Least()
	switch c.answer.Why.Binding {
	case planner.BindArray, planner.BindBackOff, planner.BindAfter:
		return nil
	default:
	}
	if least < 2 {
		return nil
	}
	unit := max(spec.GPUsPerNode, 1)
	now := x.LargestNow(c.answer.Job)
	if spec.GPUsPerNode == 0 && least%8 == 0 && now > 8 {
		unit = 8 // 56 instead of 64, not 61: gangs are mostly made of whole nodes
	}
	if now = min(now, least-unit); now > 0 {
		now -= now % unit
	}
	half := least / 2 / unit * unit
	for _, n := range []int32{now, half} {
		if n < 1 || len(out) > 0 && n <= now {
			continue // no more than what fits now
		}
		what := fmt.Sprintf("with %d instead of %d GPUs", n, spec.GPUs)
		if spec.Elastic() {
			what = fmt.Sprintf("with gpus from %d instead of %d on", n, least)
		}
		out = append(out, candidate{what, func(s *cluster.JobSpec) {
			if s.Elastic() {
				s.MinGPUs = n
			} else {
				s.GPUs = n
			}
		}, kindSize})
	}
	return out
}

// shortLimit is the time limit with which the job would be gone before GPUs are
// needed that are kept for others, or 0.
func (c *Case) shortLimit() time.Duration {
	why, spec := &c.answer.Why, c.answer.Job.Spec
	at := cluster.Time(0)
	switch why.Binding {
	case planner.BindKept:
		at = why.Until
	case planner.BindWindow:
		at = why.From
	default:
	}
	limit := (at.Sub(c.now) - spec.Warn - spec.Grace).Truncate(time.Minute)
	if at == 0 || limit < 10*time.Minute || (spec.TimeLimit > 0 && spec.TimeLimit <= limit) {
		return 0
	}
	return limit
}

// addQueue looks for another queue in which the job would start now, the nearest first.
func (c *Case) addQueue(x *planner.Index) {
	a := &c.answer
	switch a.Why.Binding {
	case planner.BindQuota, planner.BindLimit, planner.BindUserLimit:
	default:
		return
	}
	own := a.Job.Spec.Queue
	var near, far []string
	for i := range c.s.Policy().Queues {
		q := &c.s.Policy().Queues[i]
		switch {
		case q.Closed || q.Path == own || planner.Below(own, q.Path):
		case cluster.ParentQueue(q.Path) == cluster.ParentQueue(own):
			near = append(near, q.Path)
		default:
			far = append(far, q.Path)
		}
	}
	all := append(near, far...)
	for _, path := range all[:min(len(all), maxQueues)] {
		spec := *a.Job.Spec
		spec.Queue, spec.Array = path, cluster.ArraySpec{}
		j := *a.Job
		j.Spec, j.Array, j.SubmittedAt, j.ReadyAt, j.PendingAt = &spec, 0, c.now, c.now, c.now
		fit, ok := x.Fits(&j)
		if !ok {
			continue
		}
		if _, refused := submitted(c.s, c.now, &spec, a.Job.User); refused == "" {
			a.Changes = append(a.Changes, Change{What: "in queue " + path, Spec: &spec, Fit: &fit})
			return
		}
	}
}

// addPriority says what a higher priority would stop, and what that would cost.
func (c *Case) addPriority(x *planner.Index) {
	a := &c.answer
	if a.Why.Binding < planner.BindStrict || len(a.Stops) > 0 {
		return
	}
	spec := *a.Job.Spec
	spec.Array = cluster.ArraySpec{}
	if spec.Priority >= cluster.MaxPriority {
		return
	}
	j := *a.Job
	j.Spec = &spec
	spec.Priority = cluster.MaxPriority
	stops, _ := x.DryRun(&j)
	if len(stops) == 0 {
		return
	}
	least, gone := a.Job.Spec.Priority, time.Duration(0)
	for i := range stops {
		victim := c.s.Job(stops[i].Job)
		least = max(least, victim.Spec.Priority)
		gone = max(gone, victim.Spec.Warn)
	}
	if least < spec.Priority-1 { // the lowest that may stop the same jobs is enough
		low := spec
		low.Priority = least + 1
		lower := j
		lower.Spec = &low
		if s, _ := x.DryRun(&lower); len(s) > 0 {
			spec, stops = low, s
		}
	}
	a.Changes = append(a.Changes, Change{
		What: fmt.Sprintf("with priority %d, which would stop %s", spec.Priority, stopsText(stops)), Spec: &spec,
		Start: Estimate{P50: c.now.Add(gone), P90: c.now.Add(gone)}, Stops: stops,
	})
}

// tryChanges runs forward with what did not fit now, and sorts all that helps.
func (c *Case) tryChanges(l *lengths, a *Answer, work int64) []Change {
	out := slices.Clone(a.Changes)
	late := func(t cluster.Time) cluster.Time {
		if t == 0 {
			return c.now.Add(2 * horizon)
		}
		return t
	}
	base := late(a.Start.P50)
	for i := range c.tries {
		share := work / int64(len(c.tries)-i)
		if share < 2*setupCost(c.s, min(len(c.order), 2*maxWaiting)) {
			continue
		}
		ch := c.tries[i].Change
		ch.Start = c.estimate(l, &c.tries[i], share, changeRuns)
		if at := late(ch.Start.P50); at < base && base.Sub(at) >= base.Sub(c.now)/worthwhile && base.Sub(at) >= time.Minute {
			ch.What = strings.Replace(ch.What, anyType, "GPUs of any type", 1)
			out = append(out, ch)
		}
		work -= share
	}
	slices.SortStableFunc(out, func(p, q Change) int {
		return int(min(max(late(p.At(c.now))-late(q.At(c.now)), -1), 1))
	})
	return out[:min(len(out), maxChanges)]
}
