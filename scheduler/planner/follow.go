package planner

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// settle looks what became of the last plan: a start that the state refused
// leaves its job pending and its GPUs free, and what it did not keep is not kept.
func (x *Index) settle(s *cluster.State) {
	if len(x.expected)+len(x.promised)+len(x.workers) == 0 {
		return
	}
	for i := range x.expected {
		id := x.expected[i].Job
		r := x.jobs.run(id)
		if r == nil || !r.planned {
			continue
		}
		if j := s.Job(id); j != nil && j.State.Holding() && j.Epoch == x.expected[i].Epoch {
			continue // followJob takes it
		}
		x.release(r)
		for _, n := range nodesOf(x.expected[i].Workers) {
			x.followNode(n)
		}
		x.followJob(s.Job(id), id)
		if e := x.jobs.entry(id); e != nil && e.lane != nil && e.lane.shape.closed {
			x.openShape(e.lane.shape) // it was closed by those behind this job, which did fit
		}
	}
	if len(x.workers) > maxWorkers { // fewer stay until they are written over
		x.expected, x.workers = nil, nil
	}
	x.expected, x.workers = x.expected[:0], x.workers[:0]
	for _, id := range x.promised {
		if j := s.Job(id); j != nil && x.jobs.entry(id) != nil {
			x.keep(j)
		}
	}
	x.promised = x.promised[:0]
}

// maxWorkers is how many workers' memory one plan leaves to the next.
const maxWorkers = 512

// followNode takes a node's facts, and opens what may fit now. It reports
// whether the number of GPUs may have changed.
func (x *Index) followNode(id cluster.NodeID) bool {
	n := x.state.Node(id)
	if n == nil {
		x.fleet.Drop(id)
		x.news = true
		return true
	}
	grew, other := x.fleet.Put(n)
	x.news = x.news || grew || other
	if other && len(x.policy.Windows) > 0 {
		x.windowsAt = 0 // the reservations may be of it
	}
	if other && len(x.jobHolds[id])+len(x.windowHolds[id]) > 0 {
		x.setHolds(id) // it may have been unknown
	}
	if grew && len(x.closed) > 0 && !x.policy.Backfill.Off && len(x.jobHolds[id]) == 0 { // a strict order asks as it plans, see blockedStill
		x.reopen(n)
	}
	return other
}

// reopen opens the closed shapes that may fit now that there is more room on a
// node that is kept for nobody.
func (x *Index) reopen(n *cluster.Node) {
	for i := len(x.closed) - 1; i >= 0; i-- { // those behind have been looked at if one takes the place of another
		sh := x.closed[i]
		if (len(sh.Types) == 0 || hasAny(n, sh.Types)) && x.mayFit(sh) {
			x.openShape(sh)
		}
	}
}

// hasAny reports whether a node has a GPU of one of some types.
func hasAny(n *cluster.Node, types []string) bool {
	for i := range n.GPUs {
		if slices.Contains(types, n.GPUs[i].Type) {
			return true
		}
	}
	return false
}

// openShape lets the lanes of a shape be tried again.
func (x *Index) openShape(sh *shape) {
	if sh.closed {
		last := len(x.closed) - 1
		other := x.closed[last]
		x.closed[sh.place], other.place = other, sh.place
		x.closed, sh.closed, sh.inTurn = x.closed[:last], false, false
	}
	if sh.lanes.len() > 0 && sh.pos < 0 {
		x.open.push(sh)
	}
}

// openAll lets all lanes be tried again.
func (x *Index) openAll() {
	for len(x.closed) > 0 {
		x.openShape(x.closed[len(x.closed)-1])
	}
}

// reopenHeld puts back the lanes whose queues could not take the GPU types that
// were free.
func (x *Index) reopenHeld() {
	if x.heldLanes == 0 {
		return
	}
	for _, sh := range x.shapes {
		if sh == nil || len(sh.held) == 0 {
			continue
		}
		held := sh.held
		sh.held = nil
		x.heldLanes -= len(held)
		for _, l := range held {
			l.held = false
			x.addLane(l)
		}
	}
}

// closeShape takes a shape out until room grows for one of its types. Why it
// does not fit is found out at once only if nothing was said before: to say it
// anew at each try would take longer than the tries.
func (x *Index) closeShape(sh *shape) {
	if !sh.closed {
		sh.closed, sh.place = true, int32(len(x.closed)) //nolint:gosec // few
		x.closed = append(x.closed, sh)
	}
	if sh.pos >= 0 {
		x.open.remove(sh)
	}
	if sh.why == "" {
		x.sayWhy(sh)
	}
	for _, l := range sh.lanes.items {
		x.say(l, sh.why)
	}
	x.moreFills(sh)
}

// followJob takes what the state says of a job; j is nil if it is forgotten.
func (x *Index) followJob(j *cluster.Job, id cluster.JobID) {
	is := x.jobs.at(id)
	if r := is.run; r != nil {
		if j != nil && j.State.Holding() && (r.planned || j.Epoch == r.job.Epoch) { // a plan that did not come true is gone, see settle
			x.hold(r, j)
			return
		}
		x.release(r)
	}
	if e := is.entry; e != nil {
		if j != nil && j.State == cluster.Pending && j.PendingAt == e.job.PendingAt && j.NotBefore == e.job.NotBefore && (j.Unmet == 0) == (e.job.Unmet == 0) {
			x.refresh(e, j)
			return
		}
		x.jobs.dropEntry(id)
		if e.lane != nil {
			x.ask(e.lane.shape.Shape, -1)
		}
		x.dequeue(e)
		x.news = true // those behind it may start
	}
	switch {
	case j == nil:
	case j.State == cluster.Pending:
		x.enqueue(j)
	case j.State.Holding():
		x.hold(nil, j)
	}
}

// refresh takes a new version of a pending job that has kept its place.
func (x *Index) refresh(e *entry, j *cluster.Job) {
	was := e.job
	e.job = j
	if was.Kept != j.Kept {
		x.keep(j)
	}
	if was.Expected != j.Expected && e.lane != nil {
		x.ripen(e)
		x.late = true // it may be gone in time for what is kept for others
	}
	if e.lane != nil && j.Reason != e.lane.blocked && e.lane.blocked != "" {
		x.unsay(e)
	}
}

func (x *Index) followAccount(a *cluster.Account, gone bool) {
	if !x.fair() {
		return
	}
	q := x.tree.SetAccount(a, gone)
	if g := x.waiting(q, a.User); g != nil {
		x.reweigh(g)
	}
}
