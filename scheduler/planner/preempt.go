package planner

import (
	"fmt"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of one thorough plan: each claim looks at all nodes of a type.
const (
	maxClaims  = 64     // blocked jobs for which victims are sought
	claimWorth = 50_000 // nodes that are looked at for all of them
	maxLooked  = 512    // blocked jobs that are looked at, with or without hope
)

func (x *Index) claimsAtOnce() int {
	return min(max(claimWorth/max(x.state.Nodes(), 1), 4), maxClaims)
}

// preempt finds victims for the first jobs that could not start. Everything it
// pretends is undone before it returns, but for what it writes into the plan.
//
// Nothing goes round in circles: a job may be stopped by one of a higher
// priority, or of its own priority that comes before it in the order and is
// expected to need half as much GPU time or less, or to give back what its
// queue has borrowed; each of these orders jobs strictly. What a job is
// expected to need can change while others teach; so the gap grows with each
// time a job was stopped, and MaxPerJob bounds what is left.
func (x *Index) preempt(plan *Plan) {
	if x.policy.Preemption.Off {
		return
	}
	first := x.firstWaiting()
	limited := x.limited(first)
	if first == nil && len(limited) == 0 {
		return
	}
	round := x.now >= x.roundAt
	if round {
		x.roundAt = x.now.Add(roundEvery)
	}
	if !x.mayClaim(first, round) && (len(limited) == 0 || !x.mayClaim(limited[0], round)) {
		return
	}
	m := x.openMarket()
	m.round = round
	all := m.claimers()
	if all && m.idle() {
		return
	}
	mark := x.fleet.Mark()
	m.begin()
	var late []*entry
	if all {
		m.claimEach(x.claimsAtOnce(), plan)
	} else {
		late = m.claimInTurn(x.claimsAtOnce(), plan)
	}
	for _, e := range late {
		if !slices.Contains(limited, e.lane) {
			limited = x.amongFirst(limited, e.lane)
		}
	}
	m.claimLimits(limited, plan)
	m.close()
	x.fleet.Undo(mark)
}

// mayClaim reports whether any job may be stopped for a blocked one, given the
// first of them: most plans end here.
func (x *Index) mayClaim(first *lane, round bool) bool {
	if first == nil {
		return false
	}
	if round && x.preemptsByLevel() || x.hasQuota && !first.borrow {
		return true
	}
	for _, jobs := range x.priorities[:first.priority] {
		if jobs > 0 {
			return true
		}
	}
	return false
}

// claim finds the cheapest victims for one job that only lacks room, puts them into the plan
// and takes their GPUs for it. It reports whether the job will have room.
func (m *market) claim(e *entry, plan *Plan) bool {
	x := m.x
	types, _ := x.allowed(e.lane)
	if _, ok := x.place(e, types); ok {
		return true // what stops already will do
	}
	for _, t := range types {
		set := m.cheapest(e, t)
		if len(set) == 0 || !m.owed(e, set) {
			continue
		}
		set, st := m.settle(e, t, set)
		if set == nil {
			continue
		}
		m.evict(e, t, set, st, plan)
		return true
	}
	return false
}

// settle places a claimer on what victims give, and returns those whose GPUs it
// gets and where it goes; nil if it does not fit. The others are given nothing
// for: they hold what they hold.
func (m *market) settle(e *entry, gpuType string, set []*run) ([]*run, start) {
	x := m.x
	for len(set) > 0 {
		inner := x.fleet.Mark()
		for _, c := range set {
			x.fleet.Give(c.job)
		}
		x.claiming = true
		st, ok := x.place(e, []string{gpuType})
		x.claiming = false
		if !ok {
			x.fleet.Undo(inner)
			return nil, start{}
		}
		nodes := nodesOf(st.workers)
		used := slices.DeleteFunc(slices.Clone(set), func(c *run) bool {
			return !slices.ContainsFunc(c.job.NodeRanks, func(n cluster.NodeID) bool { return slices.Contains(nodes, n) })
		})
		if len(used) == len(set) {
			return set, st
		}
		x.fleet.Undo(inner)
		set = used
	}
	return nil, start{}
}

// owed reports whether all victims that are taken for what their queues have
// borrowed still owe it when the others are gone: the smallest are taken first.
func (m *market) owed(e *entry, set []*run) bool {
	if !m.x.hasQuota || m.moving {
		return true
	}
	slices.SortStableFunc(set, func(a, b *run) int { return int(a.milli - b.milli) })
	ok := true
	given := 0
	for _, c := range set {
		if ok = m.mayStop(e, c) != rightNone; !ok {
			break
		}
		m.x.tree.Give(c.q, c.job.User, c.gpuType, c.milli)
		given++
	}
	for _, c := range set[:given] {
		m.x.tree.Take(c.q, c.job.User, c.gpuType, c.milli)
	}
	return ok
}

// evict writes the victims into the plan, and what is to be kept for the claimer
// until they are gone. From here on it counts as holding what it claims.
func (m *market) evict(e *entry, gpuType string, set []*run, st start, plan *Plan) {
	x, j := m.x, e.job
	reasons := make([]string, len(set))
	for i, c := range set {
		reasons[i] = m.reason(e, c)
	}
	for _, c := range set {
		c.gone = true
		m.count(taken{q: c.q, user: c.job.User, gpuType: c.gpuType, milli: -c.milli, victim: c})
	}
	m.take(e, gpuType)
	wait := time.Duration(0)
	for i, c := range set {
		cause, why := cluster.StopPreempt, reasons[i]
		if c.shrink && m.fitsAgain(c) {
			cause, why = cluster.StopResize, fmt.Sprintf("shrinks so that job %d (%s) can start", j.ID, j.Spec.Wants())
		}
		wait = max(wait, c.job.Spec.Warn+c.job.Spec.Grace)
		plan.Evicts = append(plan.Evicts, Evict{Job: c.job.ID, Epoch: c.job.Epoch, Cause: cause, Reason: why, For: j.ID, Cost: c.lost})
	}
	plan.Keeps = append(plan.Keeps, Keep{Job: j.ID, Nodes: nodesOf(st.workers), At: x.now.Add(wait)})
}

// fitsAgain reports whether an elastic victim can go on at once with its
// smallest size, beside what the claimer has taken.
func (m *market) fitsAgain(c *run) bool {
	x := m.x
	sh := x.fleet.Shape(c.job.Spec)
	q := x.query(c.job, nil)
	return x.tree.Check(c.q, c.job.User, c.gpuType, int64(sh.Least)*int64(sh.Share)).OK && x.fleet.Place(sh, sh.Least, &q) != nil
}

// reason says to a victim for whom it stops, and by what right.
func (m *market) reason(e *entry, c *run) string {
	j := e.job
	who := fmt.Sprintf("job %d (%s, queue %s", j.ID, j.Spec.Wants(), j.Spec.Queue)
	switch {
	case m.reclaims(e, c):
		return fmt.Sprintf("preempted: %s) takes back quota that queue %s has borrowed", who, c.job.Spec.Queue)
	case j.Spec.Priority > c.job.Spec.Priority:
		return fmt.Sprintf("preempted by %s, priority %d)", who, j.Spec.Priority)
	default:
		return fmt.Sprintf("preempted by %s), which is expected to need less GPU time than this job still does", who)
	}
}
