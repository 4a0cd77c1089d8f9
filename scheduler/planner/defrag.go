package planner

import (
	"fmt"

	"github.com/gangline/gangline/scheduler/cluster"
)

// defragment moves cheap jobs away, through the checkpoint handshake, if that
// lets the first blocked gang start now: enough GPUs are free, but not
// together. Off by default; bounded by moves an hour and by what one may cost.
func (x *Index) defragment(plan *Plan) {
	d := &x.policy.Defrag
	if !d.On || len(plan.Evicts) > 0 || x.state.MovesSince(x.now.Add(-moveWindow)) >= int(d.MaxPerHour) {
		return
	}
	l := x.firstWaiting()
	if l == nil {
		return
	}
	e := l.jobs.top()
	types, blocked := x.allowed(l)
	if blocked != nil || x.arrayFull(e.job) {
		return
	}
	mark := x.fleet.Mark()
	defer x.fleet.Undo(mark)
	m := x.openMarket()
	m.moving = true
	m.begin()
	defer m.close()
	if _, ok := x.place(e, types); ok {
		return // it only waits for what stops already
	}
	for _, t := range types {
		if x.fleet.Type(t).Free < int64(l.shape.Least) {
			continue
		}
		if set := m.cheapest(e, t); set != nil && m.move(e, t, set, plan) {
			return
		}
	}
}

// move plans the moves if the gang then fits and every moved job does as well.
func (m *market) move(e *entry, gpuType string, set []*run, plan *Plan) bool {
	x := m.x
	inner := x.fleet.Mark()
	for _, c := range set {
		x.fleet.Give(c.job)
	}
	st, ok := x.place(e, []string{gpuType})
	if !ok {
		x.fleet.Undo(inner)
		return false
	}
	for _, c := range set {
		sh := x.fleet.Shape(c.job.Spec)
		q := x.query(c.job, nil)
		if x.fleet.Place(sh, c.job.Held(), &q) == nil {
			x.fleet.Undo(inner)
			return false
		}
	}
	left := int(x.policy.Defrag.MaxPerHour) - x.state.MovesSince(x.now.Add(-moveWindow))
	if len(set) > left {
		x.fleet.Undo(inner)
		return false
	}
	wait := x.now
	for _, c := range set {
		wait = max(wait, x.now.Add(c.job.Spec.Warn+c.job.Spec.Grace))
		plan.Evicts = append(plan.Evicts, Evict{
			Job: c.job.ID, Epoch: c.job.Epoch, Cause: cluster.StopMove, For: e.job.ID, Cost: c.lost,
			Reason: fmt.Sprintf("moves to other nodes so that job %d (%s) fits where it was", e.job.ID, e.job.Spec.Wants()),
		})
	}
	plan.Keeps = append(plan.Keeps, Keep{Job: e.job.ID, Nodes: nodesOf(st.workers), At: wait})
	return true
}
