package planner

import (
	"math"

	"github.com/gangline/gangline/scheduler/cluster"
)

// The roster is all jobs that hold GPUs, in no order, with what markets have
// found out of them. A run knows its place in it, so that a change of a job costs
// no search: it only marks what is known as old, and the next market finds it out
// anew, once, however often the job has changed by then.

// enroll takes a job that holds GPUs into the roster.
func (x *Index) enroll(r *run) {
	r.place = int32(len(x.candidates)) //nolint:gosec // at most MaxLiveJobs
	x.candidates = append(x.candidates, candidate{run: r})
}

// strike takes a job out of the roster; the last one has its place from then on.
func (x *Index) strike(r *run) {
	c, last := &x.candidates[r.place], len(x.candidates)-1
	if g := c.group; g != nil {
		g.runs--
		x.dropGroup(g)
	}
	*c = x.candidates[last]
	c.place = r.place
	x.candidates[last] = candidate{}
	x.candidates = x.candidates[:last]
}

// renew finds out anew what is known of a candidate from one market to the next.
func (x *Index) renew(c *candidate) {
	j, p := c.job, &x.policy.Preemption
	*c = candidate{
		run: c.run, group: c.group, priority: j.Spec.Priority, firm: !j.Spec.Preemptible,
		shrink: j.Spec.Elastic() && j.Held() > j.Spec.MinGPUs, stopping: j.State == cluster.Stopping, gone: j.State == cluster.Stopping,
	}
	if c.group == nil {
		c.group = x.groupOf(c.q, j.User)
		c.group.runs++
	}
	if c.firm || c.stopping { // as long as the state has this version of it
		c.out, c.step, c.due = true, -1, math.MaxInt64
		return
	}
	at := x.standingOf(j)
	c.key, c.level, c.step = at.key, int16(at.level), x.stepOf(j, at.level) //nolint:gosec // some 128 at most
	c.due, c.passed = x.standsUntil(j)
	if ripe := j.StartedAt.Add(p.MinRuntime); x.now < ripe {
		c.young, c.out, c.step, c.due = true, true, -1, min(c.due, ripe)
	}
}

// stepOf is the level of a running job, less what former stops make up for, or -1 if it may not be stopped by the order alone.
func (x *Index) stepOf(j *cluster.Job, level int64) int8 {
	if j.Preemptions >= x.policy.Preemption.MaxPerJob || level >= cluster.Levels { // the latter in another order: nobody asks for it
		return -1
	}
	return int8(max((levelParts*level-int64(j.Preemptions))/levelParts, 0)) //nolint:gosec // below cluster.Levels
}
