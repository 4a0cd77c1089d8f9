package planner

import (
	"slices"
	"sort"
)

// maxFill bounds the lanes that are tried on nodes kept for others, in one plan.
const maxFill = 256

// openFills lists the lanes that may use nodes which are kept for others, since
// they will be gone by then, have a higher priority, or belong to the queue for
// which the nodes are reserved, though no other gang of their shape fits. Each has its turn in
// startInOrder.
func (x *Index) openFills() {
	x.fills, x.unsorted = x.fills[:0], false
	if x.filling = x.keeps() && !x.policy.Backfill.Off; !x.filling {
		return
	}
	for _, sh := range x.closed {
		x.addFills(sh)
	}
	x.sortFills()
}

// sortFills orders the list, less those that have nothing to try any more.
func (x *Index) sortFills() {
	x.unsorted = false
	if len(x.fills) == 0 {
		return
	}
	x.fills = slices.DeleteFunc(x.fills, func(o *lane) bool { return o.jobs.len() == 0 })
	slices.SortFunc(x.fills, func(a, b *lane) int { return -compareBool(a.before(b), b.before(a)) })
}

// addFills lists those of a shape's lanes that may.
func (x *Index) addFills(sh *shape) {
	if !x.fleet.May(sh.Shape, sh.Least) {
		return
	}
	for _, l := range sh.lanes.items {
		if x.mayFill(l.jobs.top()) {
			x.fills = append(x.fills, l)
		}
	}
}

// moreFills lists the lanes of a shape that has just been closed.
func (x *Index) moreFills(sh *shape) {
	if !x.filling {
		return
	}
	x.addFills(sh)
	x.sortFills()
}

// nextFill returns the first of the listed lanes that still has a job to try.
func (x *Index) nextFill() *lane {
	if x.unsorted {
		x.sortFills()
	}
	for len(x.fills) > 0 {
		l := x.fills[0]
		if l.pos >= 0 && l.shape.closed && x.mayFill(l.jobs.top()) && !x.moved(l) {
			return l
		}
		x.fills = x.fills[1:]
		if l.pos >= 0 && l.shape.closed && x.mayFill(l.jobs.top()) {
			x.refill(l)
		}
	}
	return nil
}

// refill puts a lane to its place in the list, less those that have nothing to
// try any more.
func (x *Index) refill(l *lane) {
	x.fills = slices.DeleteFunc(x.fills, func(o *lane) bool { return o.jobs.len() == 0 })
	i := sort.Search(len(x.fills), func(i int) bool { return l.before(x.fills[i]) })
	x.fills = slices.Insert(x.fills, i, l)
}

// tryFill tries the first of the listed lanes.
func (x *Index) tryFill(plan *Plan) {
	l := x.fills[0]
	x.fills = x.fills[1:]
	if x.fill(l, plan) && l.jobs.len() > 0 {
		x.refill(l)
	}
}

// mayFill reports whether some node that is kept is open to a job in a lane.
func (x *Index) mayFill(e *entry) bool {
	j, l := e.job, e.lane
	end := x.endOf(j, x.now)
	if len(x.keptInOrder()) > 0 && (end != 0 && end <= x.keptUntil || x.keptLeast < j.Spec.Priority && !l.borrow) {
		return true
	}
	for i := range x.policy.Windows {
		w := &x.policy.Windows[i]
		if x.now < w.End && ((end != 0 && end <= w.Start) || Below(j.Spec.Queue, w.Queue)) {
			return true
		}
	}
	return false
}

// fill starts a blocked lane's first job if some node that is kept is open to
// it and it fits there, and reports whether it did.
func (x *Index) fill(l *lane, plan *Plan) bool {
	e := l.jobs.top()
	if !x.mayFit(l.shape) || !x.mayFill(e) || x.arrayFull(e.job) {
		return false
	}
	types, blocked := x.allowed(l)
	if blocked != nil {
		return false
	}
	st, ok := x.place(e, types)
	if ok {
		x.take(e, st, plan)
	}
	return ok
}
