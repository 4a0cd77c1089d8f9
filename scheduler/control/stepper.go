package control

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner"
)

// Stepper decides again and again about one state that changes in between: a
// leader has one as long as it leads. It keeps an index of the state, so that a
// step costs what has changed. One goroutine uses it.
type Stepper struct {
	cfg      Config
	index    planner.Index
	vigil    vigil
	thorough cluster.Time // when it last looked at everything
	wake     cluster.Time // next time at which something of that is due, 0: none
	draft    draft
}

// NewStepper returns a Stepper that knows nothing yet: its first step reads
// the whole state.
func NewStepper(cfg Config) *Stepper { return &Stepper{cfg: cfg} }

// Step returns the commands that the leader should propose now, in order, and
// when to step again if nothing changes until then (0: no need). It is to be
// called whenever the state has changed. Nil leases: no node is judged in this
// step. The state must not change during the call; a snapshot will do. The
// commands are good until the next step, which writes over them: State.Apply
// keeps none of them.
func (st *Stepper) Step(s *cluster.State, leases Leases, now cluster.Time) (cmds []cluster.Command, next cluster.Time) {
	// 1. Nodes whose lease ran out. What they held is known only once that is
	//    committed, so nothing else is decided in the same step. Leases are of
	//    this leader's clock, whatever clock an earlier leader had.
	if cmds := loseNodes(s, leases, now); len(cmds) > 0 {
		return cmds, now
	}
	now = max(now, s.Now())
	st.draft.begin()
	thorough := st.thorough == 0 || now >= st.thorough.Add(st.cfg.Thorough)
	if thorough {
		// 2. Jobs that have outlived their time limit or never came up; nodes
		//    to empty, or to forget.
		st.thorough = now
		st.vigil.follow(s, &st.cfg)
		overdue, due := st.vigil.evictOverdue(s, now, &st.cfg)
		nodes, at := st.vigil.tendNodes(s, now, &st.cfg, overdue)
		if len(overdue)+len(nodes) > 0 {
			st.draft.cmds = append(append(st.draft.cmds, overdue...), nodes...)
		}
		st.wake = sooner(due, at)
	}
	// 3. Gangs that start now, those that stop for them, what is kept for whom,
	//    and why the others wait.
	st.index.Follow(s)
	p := st.index.Plan(now, st.cfg.Planner, thorough)
	withoutStopped(&p, st.draft.cmds)
	st.draft.plan(s, &p)
	// 4. History over its bound.
	st.draft.forgetJobs(s, st.cfg.KeepFinal)
	cmds = st.draft.cmds
	if len(cmds) == 0 {
		if next, rests := st.rests(s); rests {
			return nil, next
		}
	}
	return cmds, st.next(s, now, len(cmds) > 0 || !thorough)
}

// rests reports whether no step will find anything until the state changes or
// the time is come that it returns (0: never), however often it looks.
func (st *Stepper) rests(s *cluster.State) (next cluster.Time, rests bool) {
	if !st.index.Rests() {
		return 0, false
	}
	st.vigil.follow(s, &st.cfg)
	if len(st.vigil.nodes) > 0 {
		return 0, false
	}
	next = st.vigil.soonest(s, &st.cfg)
	if again := st.thorough.Add(st.cfg.Thorough); next != 0 && next < again {
		next = again
	}
	return sooner(next, st.index.Wake()), true
}

// waitingTick is the longest time between two steps while a job waits: fair
// shares move, and predictions turn out wrong.
const waitingTick = time.Minute

// withoutStopped leaves out of a plan the stops of jobs that these commands stop
// already: the state would refuse the second one.
func withoutStopped(p *planner.Plan, cmds []cluster.Command) {
	if len(cmds) == 0 || len(p.Evicts) == 0 {
		return
	}
	stopped := stoppedBy(cmds)
	p.Evicts = slices.DeleteFunc(p.Evicts, func(e planner.Evict) bool { return stopped[e.Job] })
}

// stoppedBy are the jobs that commands stop.
func stoppedBy(cmds []cluster.Command) map[cluster.JobID]bool {
	stopped := map[cluster.JobID]bool{}
	for _, c := range cmds {
		if e, ok := c.(*cluster.EvictJob); ok {
			stopped[e.Job] = true
		}
	}
	return stopped
}

// next is when to step again if nothing changes. Busy: something was proposed,
// or not everything was looked at.
func (st *Stepper) next(s *cluster.State, now cluster.Time, busy bool) cluster.Time {
	next := st.wake
	if again := st.thorough.Add(st.cfg.Thorough); next != 0 && next < again {
		next = again // it is looked at then, not before
	}
	next = sooner(next, st.index.Wake())
	if s.Count(cluster.Pending) > 0 {
		next = sooner(next, now.Add(waitingTick))
	}
	if busy {
		next = sooner(next, now.Add(st.cfg.Thorough))
	}
	return next
}
