package planner

import "github.com/gangline/gangline/scheduler/cluster"

// The roster is all jobs that hold GPUs, in no order, with what markets have
// found out of them. A run knows its place in it, so that a change of a job costs
// no search: it only marks what is known as old, and the next market finds it out
// anew, once, however often the job has changed by then.

// enroll takes a job that holds GPUs into the roster.
func (x *Index) enroll(r *run) {
	r.place = int32(len(x.candidates)) //nolint:gosec // at most MaxLiveJobs
	x.candidates = append(x.candidates, candidate{r: r, old: true})
}

// strike takes a job out of the roster; the last one has its place from then on.
func (x *Index) strike(r *run) {
	c, last := &x.candidates[r.place], len(x.candidates)-1
	if g := c.group; g != nil {
		g.runs--
		x.dropGroup(g)
	}
	*c = x.candidates[last]
	c.r.place = r.place
	x.candidates[last] = candidate{}
	x.candidates = x.candidates[:last]
}

// renew forgets what was found out of a candidate before it changed.
func (c *candidate) renew(p *cluster.Policy) {
	j := c.r.job
	*c = candidate{
		job: j, r: c.r, group: c.group, ripe: j.StartedAt.Add(p.Preemption.MinRuntime), priority: j.Spec.Priority, firm: !j.Spec.Preemptible,
		shrink: j.Spec.Elastic() && j.Held() > j.Spec.MinGPUs, stopping: j.State == cluster.Stopping,
	}
}
