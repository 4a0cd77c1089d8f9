package planner

import (
	"cmp"
	"math"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
)

// startKept starts the jobs of at least a priority for which nodes are kept as
// soon as they fit, the longest kept first of one priority.
func (x *Index) startKept(rest []cluster.JobID, least int32, plan *Plan) []cluster.JobID {
	started := false
	for len(rest) > 0 {
		e := x.jobs.entry(rest[0])
		if e != nil && e.job.Spec.Priority < least && x.kept[e.job.ID] != nil {
			break
		}
		rest = rest[1:]
		if e == nil || e.lane == nil || e.pos < 0 || !x.mayFit(e.lane.shape) {
			continue // in back-off, or this plan has looked at it already, or there is no room
		}
		types, blocked := x.allowed(e.lane)
		if blocked != nil || x.arrayFull(e.job) {
			continue
		}
		if st, ok := x.place(e, types); ok {
			x.take(e, st, plan)
			started = true
		}
	}
	if started && x.filling {
		x.openFills() // other jobs are the first of their lanes by now
	}
	return rest
}

// ahead is the priority of the jobs that come next, whether they are tried or
// nodes are kept for them: only jobs of at least that may be given first what is
// kept for them.
func (x *Index) ahead(open, blocked *lane, fills int) int32 {
	top := int32(math.MinInt32)
	if len(x.kept) == 0 {
		return top
	}
	if open != nil && !open.borrow {
		top = open.priority
	}
	if blocked != nil && !blocked.borrow {
		top = max(top, blocked.priority)
	}
	if !x.filling { // no turn in this plan for those that fit nowhere else: it waits for one that has
		if b := x.firstBlocked(); b != nil && !b.borrow {
			top = max(top, b.priority)
		}
	} else if f := x.nextFill(); f != nil && fills > 0 && !f.borrow {
		top = max(top, f.priority)
	}
	return top
}

// passes reports whether a job may pass those of lower priority that have nodes
// kept for them: who would borrow comes behind all who do not.
func (x *Index) passes(j *cluster.Job) bool {
	e := x.jobs.entry(j.ID)
	return e != nil && e.lane != nil && !e.lane.borrow
}

// keptInOrder lists them. The result stays as it is while what is kept changes.
func (x *Index) keptInOrder() []cluster.JobID {
	if len(x.kept) == 0 || x.keptList != nil {
		return x.keptList
	}
	all := make([]*keeping, 0, len(x.kept))
	for _, k := range x.kept { // any order: sorted below
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b *keeping) int {
		return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.kept.Made, b.kept.Made), cmp.Compare(a.e, b.e))
	})
	x.keptList, x.keptUntil, x.keptLeast, x.keptStale = make([]cluster.JobID, len(all)), 0, all[len(all)-1].priority, math.MaxInt64
	for i, k := range all {
		x.keptList[i], x.keptUntil, x.keptStale = k.e, max(x.keptUntil, k.kept.At), min(x.keptStale, staleAfter(k.kept))
	}
	return x.keptList
}

// keptFromAny reports whether a node is kept for another job of no lower
// priority, or reserved for others than a job's queue: what comes free there is
// not for it.
func (x *Index) keptFromAny(id cluster.NodeID, j *cluster.Job) bool {
	if !x.keeps() {
		return false
	}
	byJobs := x.jobHolds[id]
	mine := slices.ContainsFunc(byJobs, func(h fleet.Hold) bool { return h.Job == j.ID })
	other := func(h fleet.Hold) bool {
		if h.Job != 0 {
			return h.Priority > j.Spec.Priority || !mine && (h.Priority == j.Spec.Priority || !x.passes(j))
		}
		return !Below(j.Spec.Queue, h.Queue)
	}
	return slices.ContainsFunc(byJobs, other) || slices.ContainsFunc(x.windowHolds[id], other)
}
