package planner

import (
	"math"

	"github.com/gangline/gangline/scheduler/cluster"
)

// overdueAt is when a job will have waited long enough for nodes to be kept for
// it, or 0 for never: the policy's time, and in the order gangline until its
// virtual deadline or a long time for a job of its length, since before that
// the jobs that pass it are meant to. One GPU needs nothing kept: the first that
// comes free is its own.
func (x *Index) overdueAt(e *entry) cluster.Time {
	j, after := e.job, x.policy.Backfill.HoldAfter
	if j.Spec.Least() <= 1 {
		return 0
	}
	at := j.PendingAt.Add(after)
	if x.policy.Order == cluster.OrderGangline && j.Expected != 0 {
		long := j.PendingAt.Add(max(longWait*after, longRuns*j.Expected))
		deadline := cluster.Time(min(e.key, math.MaxInt64/1_000_000) * 1_000_000)
		at = max(at, min(long, deadline))
	}
	return at
}

// overdue reports whether a job has waited long enough.
func (x *Index) overdue(e *entry) bool {
	at := x.overdueAt(e)
	return at != 0 && x.now >= at
}

// A job that has waited longWait times the policy's time, and longRuns times as
// long as it is expected to run, has waited long. Nodes that were kept for every
// gang that waits an hour stood idle most of the time where gangs run for days.
const (
	longWait = 12
	longRuns = 8
)

// ripening is a pending gang in the heap of those that will be overdue, by the
// second in which they will. What is not so any more is passed over when its
// time comes. So most plans see at a glance that nobody is overdue.
type ripening struct{ *entry }

func (r ripening) before(o ripening) bool {
	return r.ripe < o.ripe || (r.ripe == o.ripe && r.job.ID < o.job.ID)
}
func (r ripening) at() int    { return 0 } // only the first is ever taken out
func (r ripening) moveTo(int) {}

// ripeAt is the second in which a job in a lane will be overdue, 0: never.
func (x *Index) ripeAt(e *entry) uint32 {
	if x.policy.Backfill.Off || x.policy.Backfill.Reserve == 0 {
		return 0
	}
	return uint32(min(x.overdueAt(e)/1e9, math.MaxUint32)) //nolint:gosec // bounded
}

// ripen notes when a job in a lane will be overdue.
func (x *Index) ripen(e *entry) {
	ripe := x.ripeAt(e)
	if e.ripe != 0 && e.ripe != ripe || x.ripening.len() > x.jobs.waiting*5/4+256 { // it stands wrong, or many are no more and keep their jobs in memory
		x.ripening.items = x.ripening.items[:0]
		for e := range x.jobs.entries() {
			if e.ripe = 0; e.lane != nil && x.kept[e.job.ID] == nil {
				x.ripen(e)
			}
		}
		return
	}
	if e.ripe = ripe; ripe != 0 {
		x.ripening.push(ripening{e})
	}
}

// anyOverdue reports whether a job is overdue, or will be within this second,
// for which nothing is kept yet.
func (x *Index) anyOverdue() bool {
	for x.ripening.len() > 0 {
		r := x.ripening.top()
		if cluster.Time(r.ripe)*1e9 > x.now {
			return false
		}
		if x.missesRoom(r.entry) {
			return true
		}
		x.ripening.remove(r)
	}
	return false
}

// overdueInTurn is anyOverdue, of a job before which so few wait for room that it
// has its turn in this plan. More may come to wait before it, as shapes are found
// not to fit, but none leaves. No limit or quota may hold up anybody.
func (x *Index) overdueInTurn() bool {
	if !x.anyOverdue() {
		return false
	}
	first := x.firstOverdue(0, nil)
	before := 0
	for _, sh := range x.closed {
		before = first.waitBefore(sh.lanes.items, 0, before, x.looks)
	}
	return before < x.looks
}

// firstOverdue is the first in order of a job and the overdue ones in the part of
// the heap below an index.
func (x *Index) firstOverdue(i int, first *entry) *entry {
	if i >= x.ripening.len() {
		return first
	}
	e := x.ripening.items[i].entry
	if cluster.Time(e.ripe)*1e9 > x.now {
		return first
	}
	if x.missesRoom(e) && (first == nil || e.lane.sooner(e, first.lane, first)) {
		first = e
	}
	return x.firstOverdue(2*i+2, x.firstOverdue(2*i+1, first))
}

// missesRoom reports whether a job still waits, and nothing is kept for it.
func (x *Index) missesRoom(e *entry) bool {
	return e.lane != nil && x.jobs.entry(e.job.ID) == e && x.kept[e.job.ID] == nil
}

// waitBefore adds to a number those that come before a job in the part of a heap
// of lanes below an index, up to a limit.
func (e *entry) waitBefore(lanes []*lane, i, n, most int) int {
	if n >= most || i >= len(lanes) {
		return n
	}
	l := lanes[i]
	more := l.firstBefore(e, 0, n, most)
	if more == n {
		return n
	}
	return e.waitBefore(lanes, 2*i+2, e.waitBefore(lanes, 2*i+1, more, most), most)
}

// firstBefore is waitBefore in the part of a lane below an index.
func (l *lane) firstBefore(e *entry, i, n, most int) int {
	if n >= most || i >= l.jobs.len() || !l.sooner(l.jobs.items[i], e.lane, e) {
		return n
	}
	return l.firstBefore(e, 2*i+2, l.firstBefore(e, 2*i+1, n+1, most), most)
}

// blockedMatter reports whether a look at those that wait for room, in their
// turn, may change anything: somebody is overdue; what is kept for others may be
// of use to them; or they may belong elsewhere by now, since a limit or a
// quota moves them.
func (x *Index) blockedMatter() bool {
	return len(x.kept)+len(x.policy.Windows)+len(x.arrays) > 0 || !x.unlimited() || x.anyOverdue()
}
