package planner

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// exactLanes is up to how many lanes places are counted exactly: each costs a
// few hundred nanoseconds.
const exactLanes = 1024

// Position returns a job's place among the jobs that wait, 1 for the first of
// all, and how many there are; those in back-off, or behind other jobs, are not counted. The job may be
// one that the state does not have. With very many different jobs the place is
// counted on a part of them, and then about: InOrder is always exact, and takes
// its time.
func (x *Index) Position(j *cluster.Job) (place, of int, about bool) {
	e := x.imagine(j)
	of = x.jobs.waiting - x.asleep.len() - x.behind
	step := (len(x.lanes)-len(x.resting))/exactLanes + 1
	turn, ahead := 0, 0
	for _, q := range x.tree.Queues() {
		for _, l := range x.lanesOf(q) {
			if turn++; turn%step == 0 {
				ahead += l.aheadOf(e)
			}
		}
	}
	place = ahead*step + 1
	if own := x.jobs.entry(j.ID); own == nil || own.lane == nil {
		of++ // it is not among those that are counted, and stands with them once its time comes
	}
	return min(place, of), of, step > 1
}

// aheadOf counts the jobs of a lane that come before another one.
func (l *lane) aheadOf(e *entry) int {
	o := e.lane
	switch {
	case l.borrow != o.borrow:
		return count(!l.borrow, l.jobs.len())
	case l.priority != o.priority:
		return count(l.priority > o.priority, l.jobs.len())
	}
	return l.countAhead(0, e.key+o.offset-l.offset, e)
}

func count(all bool, n int) int {
	if all {
		return n
	}
	return 0
}

// countAhead counts those in the part of the heap below an index: if a job does
// not come before, none below it does.
func (l *lane) countAhead(i int, key int64, e *entry) int {
	if i >= len(l.jobs.items) {
		return 0
	}
	if o := l.jobs.items[i]; o.key > key || (o.key == key && (o.job.ID == e.job.ID || !older(o.job, e.job))) {
		return 0
	}
	return 1 + l.countAhead(2*i+1, key, e) + l.countAhead(2*i+2, key, e)
}

// InOrder returns the jobs that wait in the order in which they are tried, then
// those in back-off by when that ends, then those behind other jobs by id. It costs some 300 ns for each of them.
func (x *Index) InOrder() []cluster.JobID {
	type place struct {
		borrow   bool
		priority int32
		key      int64
		at       cluster.Time
		id       cluster.JobID
	}
	all := make([]place, 0, x.jobs.waiting)
	for _, q := range x.tree.Queues() {
		for _, l := range x.lanesOf(q) {
			for _, e := range l.jobs.items {
				all = append(all, place{l.borrow, l.priority, e.key + l.offset, e.job.ReadyAt, e.job.ID})
			}
		}
	}
	slices.SortFunc(all, func(a, b place) int {
		return cmp.Or(compareBool(a.borrow, b.borrow), cmp.Compare(b.priority, a.priority), cmp.Compare(a.key, b.key),
			cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id))
	})
	out := make([]cluster.JobID, 0, x.jobs.waiting)
	for i := range all {
		out = append(out, all[i].id)
	}
	sleepers := slices.SortedFunc(slices.Values(x.asleep.items), func(a, b sleeper) int { return compareBool(b.before(a), a.before(b)) })
	for _, s := range sleepers {
		out = append(out, s.job.ID)
	}
	return append(out, x.followers()...)
}

// followers are the jobs that wait for others to end, by id.
func (x *Index) followers() (ids []cluster.JobID) {
	if x.behind == 0 {
		return nil
	}
	for e := range x.jobs.entries() {
		if e.job.Unmet != 0 {
			ids = append(ids, e.job.ID)
		}
	}
	return ids
}
