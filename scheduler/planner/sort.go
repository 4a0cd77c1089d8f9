package planner

import "slices"

// A lane's place says why its next job waits: for room, then it is in its shape,
// which is closed, or held; for the limit of a queue, then it is parked; or for a
// member of its array to end, then it is nowhere. The steps that stop jobs and
// keep nodes go by that. A lane that is tried is put to its place, but most are
// not tried: their shape is known not to fit, from before. So that those steps
// find the same whatever was tried when, sortOut puts right all that wait.

// sortOut takes those that wait for room and may not start whatever is free to
// where they wait for that, and lets go on what no limit holds up any more. What
// the former say of why they wait stays as it was: a limit that comes and goes
// would write to the log each second.
func (x *Index) sortOut() {
	if x.unlimited() && len(x.arrays) == 0 {
		return
	}
	for _, q := range x.tree.Queues() {
		for _, l := range x.lanesOf(q) {
			if l.group.lanes[0] == l { // each group once
				x.sortGroup(l.group)
			}
		}
	}
}

// sortGroup sorts out the lanes of one user in one queue: all have the same limits.
func (x *Index) sortGroup(g *group) {
	left := x.leftTo(g, false)
	firm := left
	if x.hasQuota {
		firm = nil // not known yet
	}
	for _, l := range g.lanes {
		if !l.preemptible && firm == nil {
			firm = x.leftTo(g, true)
		}
		room := left
		if !l.preemptible {
			room = firm
		}
		full := x.arrayFull(l.jobs.top().job)
		within := x.within(l, room)
		waits := l.held || l.pos >= 0 && l.shape.closed
		switch {
		case full:
			if l.parked != nil {
				l.parked.drop(l)
			}
			if waits {
				x.leave(l)
			}
		case within && l.parked != nil:
			l.parked.drop(l)
			x.moveLane(l)
		case !within && waits:
			if _, blocked := x.allowed(l); blocked != nil {
				x.park(l, blocked.key(l))
			}
		}
	}
}

// leftTo is how many milli-GPUs of each of the fleet's types a group may take
// more by the limits, its firm jobs also by what was promised.
func (x *Index) leftTo(g *group, firm bool) []int64 {
	types := x.fleet.Types()
	left := make([]int64, len(types))
	for i, t := range types {
		left[i] = x.tree.Most(g.q, g.user, t)
		if firm {
			left[i] = min(left[i], x.firmRoom(g.q, t))
		}
	}
	return left
}

// within reports whether a lane's next job may start by what is left of the
// fleet's types: whether allowed finds nothing against it.
func (x *Index) within(l *lane, left []int64) bool {
	of := x.typesOf(l.shape)
	known := 0
	for i, t := range x.fleet.Types() {
		if slices.Contains(of, t) {
			if l.need <= left[i] {
				return true
			}
			known++
		}
	}
	if known == len(of) {
		return false
	}
	_, blocked := x.allowed(l) // it names types that no node has
	return blocked == nil
}

// firstWaiting is firstBlocked, after what this plan has started.
func (x *Index) firstWaiting() *lane {
	for {
		l := x.firstBlocked()
		if l == nil || !x.moved(l) {
			return l
		}
	}
}
