package replay

import (
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// scheduler is the leader's judgement as a replay drives it: the commands to apply now, and when to ask again if
// nothing changes (0: not).
type scheduler interface {
	Step(s *cluster.State, now cluster.Time) ([]cluster.Command, cluster.Time)
}

// stepped asks control.Step. No lease ever runs out: a replay's nodes do not fail.
type stepped struct{ cfg control.Config }

func newScheduler(w *world) scheduler { return &stepped{cfg: w.cfg.Control} }

// Step implements scheduler.
func (a *stepped) Step(s *cluster.State, now cluster.Time) ([]cluster.Command, cluster.Time) {
	cmds := control.Step(s, nil, now, a.cfg)
	next := cluster.Time(0)
	soon := func(t cluster.Time) {
		if t > now && (next == 0 || t < next) {
			next = t
		}
	}
	s.EachPending(func(j *cluster.Job) bool {
		soon(j.NotBefore)
		soon(j.PendingAt.Add(max(a.cfg.Planner.HoldAfter, time.Nanosecond)))
		return true
	})
	return cmds, next
}
