package planner

import (
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
)

// firstBlocked returns the lane whose first job comes first among all that wait
// for room, or nil. Lanes that wait for a queue's limit are not among them.
func (x *Index) firstBlocked() *lane {
	var best *lane
	take := func(l *lane) {
		if best == nil || l.before(best) {
			best = l
		}
	}
	for _, sh := range x.closed {
		if sh.lanes.len() > 0 {
			take(sh.lanes.top())
		}
	}
	if x.heldLanes == 0 {
		return best
	}
	for _, sh := range x.shapes {
		if sh == nil {
			continue
		}
		for _, l := range sh.held {
			take(l)
		}
	}
	return best
}

// blockedStill reports whether the lane that blocked all behind it in the last
// plan does so again: its shape fits no better than then, or cannot, it waits for
// room alone, and none comes before it. So where jobs start strictly in order, one
// more that joins the end of a long queue costs what it costs to join.
func (x *Index) blockedStill() bool {
	l := x.blocker
	if l == nil || l.pos < 0 || !l.shape.closed || l.array != 0 || l.shape.lanes.top() != l ||
		x.blockedAs != x.fleet.Version() && x.mayFit(l.shape) || !x.unlimited() || x.heldLanes > 0 || x.keeps() {
		return false
	}
	first := x.openLane()
	return first == nil || !first.before(l)
}

// setAside takes a pending job out of its lane for a while, so that those
// behind it can be looked at. See bringBack.
func (x *Index) setAside(e *entry) {
	l := e.lane
	l.away++
	if l.jobs.len() > 1 {
		l.jobs.remove(e)
		if l.pos >= 0 {
			x.moveLane(l)
		}
		return
	}
	l.aside = asideIn
	if l.held {
		l.aside = asideHeld
		x.dropHeld(l)
	} else {
		x.removeLane(l)
	}
	l.jobs.remove(e)
}

// bringBack undoes setAside.
func (x *Index) bringBack(e *entry) {
	l := e.lane
	l.away--
	if l.gone { // its last other job has started meanwhile
		x.ask(l.shape.Shape, -1) // line counts it once more
		x.line(e, l.q)
		return
	}
	l.jobs.push(e)
	if l.aside == asideHeld {
		x.holdLane(l)
	} else {
		x.moveLane(l) // wherever it belongs by now
	}
	l.aside = asideNot
}

func (x *Index) bringAllBack(aside []*entry) {
	for _, e := range aside {
		x.bringBack(e)
	}
}

// holdLane takes a lane out because what it could use is kept for others.
func (x *Index) holdLane(l *lane) {
	l.held = true
	x.removeLane(l)
	l.shape.held = append(l.shape.held, l)
	x.heldLanes++
}

func (x *Index) dropHeld(l *lane) {
	l.held = false
	l.shape.held = without(l.shape.held, l)
	x.heldLanes--
}

// say notes why the jobs of a lane wait.
func (x *Index) say(l *lane, why string) {
	if l.blocked == why {
		return
	}
	l.blocked = why
	l.unsaid = l.unsaid[:0]
	for _, e := range l.jobs.items {
		if e.job.Reason != why {
			x.unsay(e)
		}
	}
}

// unsay notes that a job does not say yet why it waits.
func (x *Index) unsay(e *entry) {
	l := e.lane
	l.unsaid = append(l.unsaid, e)
	if !l.listed {
		l.listed = true
		x.unsaid = append(x.unsaid, l)
	}
}

// reconsider looks again why some of the closed shapes do not fit: while a shape
// stays closed, what stands against it may have changed.
func (x *Index) reconsider() {
	from, all := x.whyNext, len(x.shapes)
	now := x.passWhys()
	for _, sh := range x.closed {
		if (now == all || (sh.ID-from-1+all)%all < now) && !x.whyStands(sh) {
			x.sayWhy(sh)
		}
	}
}

// passWhys goes on to the shapes that reconsider looks at next, and returns how
// many it looks at now.
func (x *Index) passWhys() int {
	all := len(x.shapes)
	n := min(x.claimsAtOnce(), all)
	if n < all {
		x.whyNext = (x.whyNext + n) % all
	}
	return n
}

// whysStand reports whether nothing has changed of why any closed shape does not fit.
func (x *Index) whysStand() bool {
	for _, sh := range x.closed {
		if !x.whyStands(sh) {
			return false
		}
	}
	return true
}

// whyStands reports whether that is so of one, or nobody asks for it.
func (x *Index) whyStands(sh *shape) bool {
	return sh.lanes.len() == 0 || sh.why != "" && sh.as == x.whyAs(sh.as.keeper)
}

// sayWhy finds out why a shape does not fit and says it to its lanes.
func (x *Index) sayWhy(sh *shape) {
	keeper := cluster.JobID(0)
	if x.fleet.Stands(&sh.said.ob, sh.Shape, sh.Least) {
		sh.why = sh.said.text
	} else {
		ob := x.fleet.Why(sh.Shape, sh.Least, x.anyQuery())
		if ob.Fits() { // but for what is kept for others
			ob = x.fleet.Why(sh.Shape, sh.Least, &fleet.Query{})
		}
		sh.why = x.obstacleText(sh, &ob, sh.lanes.top().jobs.top().job.Spec)
		if ob.Lack == fleet.LackKept {
			keeper = ob.Keeper.Job
		}
	}
	sh.as = x.whyAs(keeper)
	for _, l := range sh.lanes.items {
		x.say(l, sh.why)
	}
}

// whyAs is all that the reason why a shape does not fit depends on. Equal ones,
// equal reasons.
type whyAs struct {
	fleet  fleet.Version
	keeper cluster.JobID    // for which nodes are kept, if that is the reason, or 0
	spec   *cluster.JobSpec // of it
}

func (x *Index) whyAs(keeper cluster.JobID) whyAs {
	as := whyAs{fleet: x.fleet.Version(), keeper: keeper}
	if keeper != 0 {
		if j := x.state.Job(keeper); j != nil {
			as.spec = j.Spec
		}
	}
	return as
}

// explain tells jobs why they wait, where that has changed.
func (x *Index) explain(plan *Plan) {
	if x.blocker != nil {
		for _, sh := range x.open.items {
			if !sh.inTurn {
				x.sayTurn(sh)
			}
		}
		x.say(x.blocker, x.blockerText())
	}
	if len(x.unsaid) == 0 {
		return
	}
	left := x.cfg.MaxExplained
	rest := x.unsaid[:0]
	reasons := reasonList{all: x.reasons[:0]}
	for _, l := range x.unsaid {
		i := -1 // of the lane's reason among the plan's
		for left > 0 && len(l.unsaid) > 0 {
			last := len(l.unsaid) - 1
			e := l.unsaid[last]
			l.unsaid[last] = nil
			l.unsaid = l.unsaid[:last]
			if e.lane != l || x.jobs.entry(e.job.ID) != e || e.job.Reason == l.blocked {
				continue
			}
			if i < 0 {
				i = reasons.find(l.blocked)
			}
			reasons.all[i].Jobs = append(reasons.all[i].Jobs, e.job.ID)
			left--
		}
		if len(l.unsaid) > 0 {
			rest = append(rest, l)
			continue
		}
		l.listed = false
	}
	clear(x.unsaid[len(rest):])
	x.unsaid = rest
	x.reasons, plan.Reasons = reasons.all, reasons.all
	sortReasons(plan.Reasons)
}

// sayTurn tells the lanes of an open shape that they wait their turn. They say so
// until another one joins them or the shape has been closed.
func (x *Index) sayTurn(sh *shape) {
	sh.inTurn = true
	for _, l := range sh.lanes.items {
		x.say(l, strictText)
	}
}

// blockerText is why the lane that blocks all others does not fit, as if nothing
// were kept for anyone.
func (x *Index) blockerText() string {
	sh := x.blocker.shape
	if sh.why != "" && !x.keeps() && sh.as == x.whyAs(0) {
		return sh.why // as sayWhy has found out
	}
	ob := x.fleet.Why(sh.Shape, sh.Least, x.anyQuery())
	return x.obstacleText(sh, &ob, x.blocker.jobs.top().job.Spec)
}

// grow stops elastic jobs that could go on with many more GPUs, if nobody waits
// for them: at a checkpoint, so that little is lost.
func (x *Index) grow(plan *Plan) {
	if x.elastic == 0 || x.firstBlocked() != nil || len(plan.Evicts) > 0 {
		return
	}
	x.state.EachHolding(func(j *cluster.Job) bool {
		if j.State != cluster.Running || !j.Spec.Elastic() || j.Held() >= j.Spec.GPUs || x.now.Sub(j.StartedAt) < growAfter {
			return true
		}
		if c := j.Checkpoint; c == nil || c.Epoch != j.Epoch || x.now.Sub(c.RecordedAt) > atCheckpoint {
			return true // at its next one; whoever reports none would lose all its work
		}
		size := x.couldHave(j)
		if size < j.Held()+max(j.Spec.GPUsPerNode, j.Held()/4, 1) {
			return true
		}
		plan.Evicts = append(plan.Evicts, Evict{
			Job: j.ID, Epoch: j.Epoch, Cause: cluster.StopResize, Reason: growText(j.Held(), size),
		})
		return false // one at a time: the next sees what this one has taken
	})
}

// couldHave is how many GPUs a running job would get if it started now.
func (x *Index) couldHave(j *cluster.Job) int32 {
	mark := x.fleet.Mark()
	defer x.fleet.Undo(mark)
	x.fleet.Give(j)
	sh := x.fleet.Shape(j.Spec)
	q := x.query(j, nil)
	r := x.jobs.run(j.ID)
	x.tree.Give(r.q, j.User, r.gpuType, r.milli)
	defer x.tree.Take(r.q, j.User, r.gpuType, r.milli)
	if !j.Spec.Preemptible {
		x.countFirm(r.q, r.gpuType, -r.milli)
		defer x.countFirm(r.q, r.gpuType, r.milli)
	}
	size, _ := x.elasticSize(sh, &q, r.q, j, x.typesOf(&shape{Shape: sh}))
	return size
}
