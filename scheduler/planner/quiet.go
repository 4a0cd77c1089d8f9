package planner

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// quiet reports whether a plan would find what the last one did: nothing has
// changed but what that one has foreseen, and time alone changes nothing. So the
// look after each plan, at what became of it, costs next to nothing.
func (x *Index) quiet(thorough bool) bool {
	if x.news || len(x.unsaid) > 0 || x.now >= x.windowsAt || (x.asleep.len() > 0 && x.asleep.top().job.NotBefore <= x.now) {
		return false
	}
	moves := x.fair() && x.now/factorPeriod != x.factorsAt
	if !thorough {
		return !moves
	}
	if moves || !x.settled() {
		if !x.exhausted() {
			return false
		}
		x.passWhys()
	}
	x.refreshMix()
	return true
}

// exhausted reports whether a thorough plan would find nothing, since the last
// one has looked at all that is still so, and the time has not come for anything
// that it left: to stop jobs by the order, to keep nodes for a job, or to give up
// what is kept. It does not know all policies, and then says no.
func (x *Index) exhausted() bool {
	p := x.policy
	if x.late || p.Backfill.Off || p.Defrag.On || !x.unlimited() ||
		len(p.Windows)+len(x.parked)+len(x.arrays)+x.elastic+x.heldLanes+x.open.len() > 0 {
		return false
	}
	if len(x.keptInOrder()) > 0 && x.now > x.keptStale || int(p.Backfill.Reserve) > len(x.kept) && x.anyOverdue() {
		return false
	}
	first := x.firstBlocked()
	if first != nil && !p.Preemption.Off && (x.now >= x.roundAt || x.mayClaim(first, false)) || !x.whysStand() {
		return false
	}
	if x.refreshOffsets(); x.news && len(x.kept) > 0 {
		return false // others come first by now, to whom what is kept may be of use
	}
	x.news = false
	return true
}

// inOrderAlone reports whether jobs start in order, and that is all: nothing is
// kept for anybody, nobody waits for a limit or an array, and nobody is ever
// stopped for another. Then there is nothing to do but what each plan does.
func (x *Index) inOrderAlone() bool {
	return x.plain && len(x.kept)+len(x.parked)+len(x.arrays)+x.elastic+x.heldLanes == 0
}

// settled reports whether a thorough plan has nothing to look at that only such
// plans do.
func (x *Index) settled() bool {
	p := x.policy
	return !x.late && p.Backfill.Off && p.Preemption.Off && !x.hasQuota && !p.Defrag.On &&
		len(p.Windows)+len(x.kept)+len(x.parked)+x.elastic+x.heldLanes == 0
}

// Rests reports whether plans will find nothing, and change nothing of what
// later ones find, until the state changes or the time is come that Wake says:
// there is no use in planning until then.
func (x *Index) Rests() bool {
	return !x.news && len(x.unsaid) == 0 && !x.fair() && x.settled() && x.mixRests()
}

// tidy leaves out what the state would refuse, since the steps do not look at
// each other's results: what is kept for jobs that a later step has started, or
// kept anew, and second stops of one job.
func (x *Index) tidy(plan *Plan) {
	if len(plan.Keeps) > 0 {
		x.tidyKeeps(plan)
	}
	if len(plan.Evicts) < 2 {
		return
	}
	stopped := map[cluster.JobID]bool{}
	plan.Evicts = slices.DeleteFunc(plan.Evicts, func(e Evict) bool {
		twice := stopped[e.Job]
		stopped[e.Job] = true
		return twice
	})
}

func (x *Index) tidyKeeps(plan *Plan) {
	last := map[cluster.JobID]int{}
	for i := range plan.Keeps {
		last[plan.Keeps[i].Job] = i
	}
	keeps := plan.Keeps[:0]
	for i, k := range plan.Keeps {
		if x.jobs.entry(k.Job) != nil && last[k.Job] == i {
			keeps = append(keeps, k)
		}
	}
	plan.Keeps = slices.Clip(keeps)
}
