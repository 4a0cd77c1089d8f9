package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/scheduler/api"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
	"github.com/gangline/gangline/scheduler/replica"
)

// judgeEvery is how often leases are compared with the clock, far below what a lease lasts.
const judgeEvery = 100 * time.Millisecond

// proposeTimeout bounds one step's commands in the log; the next step decides anew.
const proposeTimeout = 10 * time.Second

// leader is the loop that runs on the server that leads.
type leader struct {
	replica *replica.Replica
	hub     *api.Hub
	clock   *clock
	cfg     Config
	metrics *metrics
	log     *slog.Logger

	stepper  *control.Stepper // of this term
	judgedAt time.Time        // when the nodes' leases were last looked at
}

// lead serves the agents and decides, until leadership is lost.
func (l *leader) lead(ctx context.Context, term uint64) error {
	l.log.Info("leads the cluster", "term", term)
	defer l.log.Info("no longer leads the cluster", "term", term)
	l.stepper, l.judgedAt = control.NewStepper(l.cfg.Control), time.Time{}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		l.hub.Lead(ctx, term)
		return nil
	})
	g.Go(func() error { return l.loop(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// loop looks at the state whenever it has changed and whenever a tick has
// passed, and proposes what control.Step says. It proposes on committed state
// only, and waits for each proposal: nothing is decided twice. Steps take at
// most half of one core: with a long queue each takes milliseconds, and a
// stream of submits would otherwise keep it at it without end.
func (l *leader) loop(ctx context.Context) error {
	tick := time.NewTicker(l.cfg.Tick)
	defer tick.Stop()
	for ctx.Err() == nil {
		updated := l.replica.Updated()
		began := time.Now()
		changed := l.step(ctx)
		if pause := min(time.Since(began), l.cfg.Tick); pause >= worthPausing {
			wait(ctx, pause)
		}
		if changed {
			continue
		}
		select {
		case <-updated:
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// worthPausing is the shortest pause between two steps; shorter ones cost more than they save.
const worthPausing = time.Millisecond

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// step decides once. It reports whether something was changed, so that the
// caller looks again at once.
func (l *leader) step(ctx context.Context) bool {
	s := l.replica.State()
	t, ahead := l.clock.now()
	now := cluster.Time(t.UnixNano())
	began := time.Now()
	var leases control.Leases // nil: not looked at this time; with many nodes that takes longer than all else
	if began.Sub(l.judgedAt) >= judgeEvery {
		l.judgedAt = began
		leases = control.Leases(l.hub.Leases()).Shift(s, ahead) // the hub's are by this server's own clock
	}
	cmds, _ := l.stepper.Step(s, leases, now)
	l.metrics.stepSeconds.Observe(time.Since(began).Seconds())
	if len(cmds) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	results, _, err := l.replica.Propose(ctx, cmds...)
	if err != nil {
		// Whatever did commit is seen in the state; the next step decides on that.
		l.log.Warn("the log did not take the step's commands: tries again", "commands", len(cmds), "err", err)
		return false
	}
	changed := false
	for i, r := range results {
		if r.Code != cluster.OK {
			// Agents and users change the state while Step thinks; Apply is right.
			l.log.Debug("a command of the step was refused", "command", cmds[i], "reason", r.Message)
			continue
		}
		changed = changed || len(r.Changes) > 0
		if c, ok := cmds[i].(*cluster.StartJob); ok {
			l.metrics.waitSeconds.Observe(now.Sub(s.Job(c.Job).PendingAt).Seconds())
		}
	}
	return changed
}
