package planner

import (
	"cmp"
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// claimEach lets those claim in their order whom claimers has listed, at most so
// many.
func (m *market) claimEach(claims int, plan *Plan) {
	for _, e := range m.hopes {
		if claims == 0 {
			break
		}
		if at := m.standingOf(e).level; !m.failedFrom(e, at) {
			claims--
			m.tryClaim(e, at, plan)
		}
	}
}

// claimInTurn is claimEach for all who wait for room and may hope for it, by
// taking one after the other out of its lane, since what this plan does may change
// their order, or what stands against them. It returns those of them that turn out
// to wait for a limit.
func (m *market) claimInTurn(claims int, plan *Plan) (late []*entry) {
	x := m.x
	var done []*entry
	for len(done) < maxLooked && claims > 0 {
		l := x.firstBlocked()
		if l == nil {
			break
		}
		if x.moved(l) {
			continue
		}
		e := l.jobs.top()
		if m.noneBehind(e) {
			break
		}
		at := x.standingOf(e.job).level
		switch _, blocked := x.allowed(l); {
		case blocked != nil: // its limit was reached after its shape had been closed: it waits for that, and says nothing of others
			late = append(late, e)
		case x.arrayFull(e.job) || m.hopeless(e) || m.failedFrom(e, at) && !x.hasQuota:
		default:
			claims--
			m.tryClaim(e, at, plan)
		}
		x.setAside(e)
		done = append(done, e)
	}
	x.bringAllBack(done)
	return late
}

// tryClaim claims for a job of a level, and notes if nobody was found.
func (m *market) tryClaim(e *entry, level int64, plan *Plan) {
	if !m.claim(e, plan) && m.x.now.Sub(e.job.PendingAt) >= waitBefore {
		m.failed[e.lane.shape] = level
	}
}

// failedFrom reports whether a job of the same shape and of no higher level has
// found nobody.
func (m *market) failedFrom(e *entry, level int64) bool {
	least, known := m.failed[e.lane.shape]
	return known && level >= least
}

// claimers lists in their order those that wait for room, up to the first one
// behind whom nobody may hope, less those that may not hope themselves. All: that
// can be said without taking them out of their lanes, and none is left out since
// they are too many. Nothing but the jobs' own keys and levels counts then, so
// most of them, whose heaps say that those below are further behind still, are
// not looked at.
func (m *market) claimers() (all bool) {
	x := m.x
	m.hopes, m.looked = m.hopes[:0], 0
	if x.policy.Order != cluster.OrderGangline || x.hasQuota || x.tree.HasLimits() || len(x.arrays)+x.heldLanes > 0 {
		return false
	}
	for _, sh := range x.closed {
		m.amongLanes(sh.lanes.items, 0)
	}
	slices.SortFunc(m.hopes, func(a, b *entry) int {
		switch {
		case a.lane.priority != b.lane.priority:
			return cmp.Compare(b.lane.priority, a.lane.priority)
		case a.key+a.lane.offset != b.key+b.lane.offset:
			return cmp.Compare(a.key+a.lane.offset, b.key+b.lane.offset)
		default:
			return compareBool(older(b.job, a.job), older(a.job, b.job))
		}
	})
	return m.looked <= maxLooked
}

// amongLanes looks at the lanes in the part of a heap below an index.
func (m *market) amongLanes(lanes []*lane, i int) {
	if i < len(lanes) && m.amongJobs(lanes[i].jobs.items, 0) {
		m.amongLanes(lanes, 2*i+1)
		m.amongLanes(lanes, 2*i+2)
	}
}

// amongJobs looks at the jobs in the part of a lane below an index. It reports
// whether anybody behind the first of these may hope.
func (m *market) amongJobs(jobs []*entry, i int) bool {
	if i >= len(jobs) || m.looked > maxLooked || m.noneBehind(jobs[i]) {
		return false
	}
	m.looked++
	if !m.hopeless(jobs[i]) {
		m.hopes = append(m.hopes, jobs[i])
	}
	m.amongJobs(jobs, 2*i+1)
	m.amongJobs(jobs, 2*i+2)
	return true
}
