package replay

import (
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// scheduler is the leader's judgement as a replay drives it: the commands to apply now, and when to ask again if
// nothing changes (0: not). Tests have others.
type scheduler interface {
	Step(s *cluster.State, now cluster.Time) ([]cluster.Command, cluster.Time)
}

// leader is the leader's judgement itself. Without conditions no lease ever runs out.
type leader struct {
	w       *world
	stepper *control.Stepper
}

func newScheduler(w *world) scheduler {
	cfg := w.cfg.Control
	cfg.Planner.Length = w.length
	return &leader{w, control.NewStepper(cfg)}
}

// Step implements scheduler.
func (l *leader) Step(s *cluster.State, now cluster.Time) ([]cluster.Command, cluster.Time) {
	var leases control.Leases
	if r := l.w.real; r != nil {
		leases = r.leases()
	}
	return l.stepper.Step(s, leases, now)
}
