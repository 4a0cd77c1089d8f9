package planner

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// maxLimited bounds the lanes that wait for a limit and for which victims are
// sought in one plan: each looks at all running jobs.
const maxLimited = 8

// limited lists the first lanes that wait for the limit of a queue or a user
// although their own queue has been promised what they need, or no queue has
// been promised anything.
//
// It looks at all that are parked, not at the first of each waitlist: a lane
// that several limits hold up is in the list of the one that was seen first,
// and an index made anew sees another one first. Where jobs start strictly in
// order, those behind the first that waits for room have not had their turn,
// whatever list they are in from before.
func (x *Index) limited(first *lane) []*lane {
	if !x.policy.Backfill.Off {
		first = nil
	}
	if len(x.parked) == 0 {
		return nil
	}
	lanes := make([]*lane, 0, maxLimited+1)
	for _, w := range x.parked { // any order: the first ones are the same
		for _, r := range w.rows {
			for _, item := range r.lanes.items {
				if first == nil || !first.before(item.lane) {
					lanes = x.amongFirst(lanes, item.lane)
				}
			}
		}
	}
	return lanes
}

// amongFirst puts a lane at its place among the first maxLimited, if it is one
// of them and may claim. Whether it would borrow is asked again: jobs that this
// plan has started may have used up what its queue was promised.
func (x *Index) amongFirst(lanes []*lane, l *lane) []*lane {
	if l.borrow || len(lanes) == maxLimited && !l.before(lanes[maxLimited-1]) || x.kept[l.jobs.top().job.ID] != nil || x.borrows(l) {
		return lanes
	}
	at, _ := slices.BinarySearchFunc(lanes, l, func(a, b *lane) int { return -compareBool(a.before(b), b.before(a)) })
	lanes = slices.Insert(lanes, at, l)
	return lanes[:min(len(lanes), maxLimited)]
}

// claimLimits finds victims for jobs that wait for a limit, among those that
// hold GPUs under it: what others have borrowed there, or hold at a lower
// priority. Without it a queue could wait for its own quota as long as its
// siblings fill the limit of the queue above them.
func (m *market) claimLimits(lanes []*lane, plan *Plan) {
	for _, l := range lanes {
		e := l.jobs.top()
		if m.hopeless(e) || m.x.arrayFull(e.job) {
			continue
		}
		for _, t := range m.x.typesOf(l.shape) {
			if m.claimLimit(e, t, plan) {
				break
			}
		}
	}
}

func (m *market) claimLimit(e *entry, gpuType string, plan *Plan) bool {
	x := m.x
	if !x.mayBorrow(e.lane, gpuType) {
		return false
	}
	set := m.underLimits(e, gpuType)
	if len(set) == 0 || !m.owed(e, set) {
		return false
	}
	inner := x.fleet.Mark()
	for _, c := range set {
		x.fleet.Give(c.job)
		c.gone = true // to others of this claim
	}
	x.claiming = true
	st, ok := x.place(e, []string{gpuType})
	x.claiming = false
	if !ok { // there is no room either
		var more []*run
		if more, st = m.settle(e, gpuType, m.cheapest(e, gpuType)); len(more) > 0 {
			set, ok = append(set, more...), true
		}
	}
	for _, c := range set {
		c.gone = false
	}
	if !ok {
		x.fleet.Undo(inner)
		return false
	}
	m.evict(e, gpuType, set, st, plan)
	return true
}

// underLimits returns the least disruptive victims without which no limit is in
// the claimer's way, or nil.
func (m *market) underLimits(e *entry, gpuType string) []*run {
	x := m.x
	var set []*run
	defer func() {
		for _, c := range set {
			x.tree.Take(c.q, c.job.User, c.gpuType, c.milli)
		}
	}()
	var cands []*run
	for range m.runs {
		v := x.tree.Check(e.lane.q, e.lane.user, gpuType, e.lane.need)
		if v.OK {
			return slices.Clone(set)
		}
		if cands == nil {
			cands = m.stoppable(e)
		}
		i := slices.IndexFunc(cands, func(c *run) bool { return counts(c, &v, e.lane.user, gpuType) && m.mayStop(e, c) != rightNone })
		if i < 0 {
			return nil
		}
		c := cands[i]
		cands = slices.Delete(cands, i, i+1)
		set = append(set, c)
		x.tree.Give(c.q, c.job.User, c.gpuType, c.milli)
	}
	return nil
}

// stoppable lists all whom a claimer may stop, the least disruptive first.
func (m *market) stoppable(e *entry) []*run {
	cands := []*run{}
	for _, g := range m.x.running {
		for _, c := range g.roster.all {
			if m.mayStop(e, c) != rightNone {
				cands = append(cands, c)
			}
		}
	}
	slices.SortFunc(cands, func(a, b *run) int {
		return cmp.Or(cmp.Compare(m.mayStop(e, a), m.mayStop(e, b)), cmp.Compare(a.job.Spec.Priority, b.job.Spec.Priority),
			cmp.Compare(a.lost, b.lost), cmp.Compare(a.job.ID, b.job.ID))
	})
	return cands
}

// counts reports whether what a job holds counts against the limit that a
// verdict names.
func counts(c *run, v *quota.Verdict, user, gpuType string) bool {
	if v.Cause == quota.TypeLimit && c.gpuType != gpuType || v.Cause == quota.UserLimit && c.job.User != user {
		return false
	}
	for q := c.q; q != nil; q = q.Parent() {
		if q == v.Blocker {
			return true
		}
	}
	return false
}

// holdLimits counts what jobs need for which others are being stopped as if
// they held it, for this plan: otherwise those that come behind them, or the
// stopped ones themselves, would fill the limit again as the victims go, one
// after the other. It returns what undoes that.
func (x *Index) holdLimits() (undo func()) {
	if len(x.kept) == 0 || x.unlimited() {
		return func() {}
	}
	var held []taken
	for _, id := range x.keptInOrder() {
		e := x.jobs.entry(id)
		if e == nil || e.lane == nil || x.arrayFull(e.job) {
			continue
		}
		if _, blocked := x.allowed(e.lane); blocked == nil {
			continue
		}
		t := taken{q: e.lane.q, user: e.lane.user, gpuType: x.keptType(x.kept[id].kept), milli: e.lane.need}
		if !e.job.Spec.Preemptible {
			t.firm = t.milli
		}
		x.tree.Take(t.q, t.user, t.gpuType, t.milli)
		x.countFirm(t.q, t.gpuType, t.firm)
		held = append(held, t)
	}
	return func() {
		for _, t := range held {
			x.tree.Give(t.q, t.user, t.gpuType, t.milli)
			x.countFirm(t.q, t.gpuType, -t.firm)
		}
	}
}

// keptType is the type of the GPUs that are kept.
func (x *Index) keptType(k *cluster.Kept) string {
	for _, id := range k.Nodes {
		if n := x.state.Node(id); n != nil && len(n.GPUs) > 0 {
			return n.GPUs[0].Type
		}
	}
	return ""
}

// allowedOnceStopped is whether a job may start by all limits when what stops
// already is gone.
func (x *Index) allowedOnceStopped(l *lane) bool {
	if _, blocked := x.allowed(l); blocked == nil {
		return true
	}
	var gone []*run
	x.state.EachHolding(func(j *cluster.Job) bool {
		if r := x.jobs.run(j.ID); r != nil && j.State == cluster.Stopping {
			x.tree.Give(r.q, j.User, r.gpuType, r.milli)
			gone = append(gone, r)
		}
		return true
	})
	_, blocked := x.allowed(l)
	for _, r := range gone {
		x.tree.Take(r.q, r.job.User, r.gpuType, r.milli)
	}
	return blocked == nil
}
