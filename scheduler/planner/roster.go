package planner

import (
	"slices"
	"sort"

	"github.com/gangline/gangline/scheduler/cluster"
)

// The roster is all jobs that hold GPUs, by id, with what markets have found out
// of them. It follows what changes of these jobs, and is brought up to date when
// a market opens.

// newCandidate is a job of which nothing has been found out yet.
func newCandidate(j *cluster.Job, r *run, p *cluster.Policy) candidate {
	return candidate{
		job: j, r: r, ripe: j.StartedAt.Add(p.Preemption.MinRuntime), priority: j.Spec.Priority, firm: !j.Spec.Preemptible,
		shrink: j.Spec.Elastic() && j.Held() > j.Spec.MinGPUs, stopping: j.State == cluster.Stopping,
	}
}

// minMarks is how many changes the roster follows however few jobs there are.
const minMarks = 256

// mark notes that a job that holds GPUs, or did, is not what the roster knows.
func (x *Index) mark(id cluster.JobID) {
	switch {
	case !x.listed:
	case len(x.marked) >= len(x.candidates)+minMarks: // it is as well made anew
		x.listed, x.marked = false, nil
	default:
		x.marked = append(x.marked, id)
	}
}

// candidateOf is what the roster should know of a job, if it should know it.
func (x *Index) candidateOf(j *cluster.Job) (c candidate, ok bool) {
	if j == nil || !j.State.Holding() {
		return c, false
	}
	r := x.jobs.run(j.ID)
	if r == nil {
		return c, false
	}
	return newCandidate(j, r, x.policy), true
}

// relist brings the roster up to date.
func (x *Index) relist() {
	if !x.listed {
		x.listed, x.candidates = true, x.candidates[:0]
		x.state.EachHolding(func(j *cluster.Job) bool {
			if c, ok := x.candidateOf(j); ok {
				x.candidates = append(x.candidates, c)
			}
			return true
		})
		return
	}
	slices.Sort(x.marked)
	all, left, added := x.candidates, false, x.added[:0]
	for i, id := range x.marked {
		if i > 0 && id == x.marked[i-1] {
			continue
		}
		c, ok := x.candidateOf(x.state.Job(id))
		at := sort.Search(len(all), func(i int) bool { return all[i].job.ID >= id })
		known := at < len(all) && all[at].job.ID == id
		switch {
		case known && ok:
			all[at] = c
		case known:
			all[at].r, left = nil, true
		case ok:
			added = append(added, c)
		}
	}
	if left {
		all = slices.DeleteFunc(all, func(c candidate) bool { return c.r == nil })
	}
	x.candidates = merged(all, added)
	clear(added)
	x.marked, x.added = x.marked[:0], added[:0]
	if cap(x.marked) > 4*minMarks {
		x.marked, x.added = nil, nil
	}
}

// merged puts candidates among others, in place; both are by job id.
func merged(all, added []candidate) []candidate {
	from, rest := len(all)-1, len(added)-1
	all = append(all, added...)
	for to := len(all) - 1; rest >= 0; to-- {
		if from >= 0 && all[from].job.ID > added[rest].job.ID {
			all[to], from = all[from], from-1
		} else {
			all[to], rest = added[rest], rest-1
		}
	}
	return all
}
