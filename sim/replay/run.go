package replay

import (
	"fmt"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds that turn an endless replay into an error or an end.
const (
	maxRounds = 1 << 16 // of decisions in one moment
	maxIdle   = 1 << 14 // looks at a cluster in which nothing runs, nothing comes and nothing starts
)

// Run replays a trace and reports what happened. It returns an error if the config is wrong, or if the scheduler broke
// one of its own rules; a job that never runs is part of the report.
func Run(cfg Config, tr *Trace) (*Report, error) {
	return runWith(&cfg, tr, newScheduler)
}

// runWith is Run with any scheduler; each part of the trace has one of its own.
func runWith(cfg *Config, tr *Trace, sched func(*world) scheduler) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	jobs := make([]Job, 0, len(tr.Jobs))
	for i := range tr.Jobs {
		if tr.Jobs[i].GPUs > 0 {
			jobs = append(jobs, tr.Jobs[i])
		}
	}
	inOrder(jobs)
	window := windowOf(jobs)
	parts := []part{{jobs: jobs, nodes: tr.Nodes}}
	if cfg.Partitions {
		parts = partition(jobs, tr.Nodes)
	}
	eyes := newObserver(cfg.Watch, len(jobs))
	sum := newSummary(window, len(tr.Jobs)-len(jobs), tr.Skipped)
	for _, p := range parts {
		w, err := newWorld(cfg, p.jobs, p.nodes)
		if err != nil {
			return nil, err
		}
		w.meter.window = window
		w.renew = sched
		w.sched = sched(w)
		eyes.enter(w, p.queue)
		if err := w.run(); err != nil {
			return nil, err
		}
		if err := eyes.leave(); err != nil {
			return nil, err
		}
		sum.add(w, p.nodes)
		if w.stopped {
			sum.rep.Partial = true
			break
		}
	}
	return sum.report(), nil
}

// run plays until nothing is left to happen.
func (w *world) run() error {
	next, wake, idle := 0, cluster.Time(0), 0
	for {
		// 1. When does something happen next?
		at := wake
		soon := func(t cluster.Time) {
			if at == 0 || t < at {
				at = t
			}
		}
		if len(w.events) > 0 {
			soon(w.events[0].at)
		}
		if next < len(w.jobs) {
			soon(genesis.Add(w.jobs[next].job.Submit))
		}
		if w.real != nil {
			if next == len(w.jobs) && w.real.over() {
				break
			}
			if t := w.real.next(); t != 0 {
				soon(t)
			}
		}
		if at == 0 || idle > maxIdle {
			break
		}
		if end := genesis.Add(w.cfg.Until); w.cfg.Until > 0 && at > end {
			w.now = end
			break
		}
		if w.eyes != nil {
			w.eyes.samples(at)
		}
		w.now = max(at, w.now)
		// 2. Ends come before submissions of the same moment: what they free is there for them.
		for len(w.events) > 0 && w.events[0].at <= w.now {
			e := w.events.pop()
			w.fired++
			w.fire(&e)
		}
		if w.real != nil {
			w.real.play()
		}
		for next < len(w.jobs) && genesis.Add(w.jobs[next].job.Submit) <= w.now {
			w.fired++
			w.submit(int32(next)) //nolint:gosec // a trace has fewer jobs than 2^31
			next++
		}
		// 3. The leader decides until it has nothing more to say.
		acted, err := false, error(nil)
		if wake, acted, err = w.decide(); err != nil {
			return err
		}
		if idle++; acted || w.running > 0 || next < len(w.jobs) {
			idle = 0
		}
		if err := w.check(); err != nil {
			return err
		}
		if w.eyes != nil && !w.eyes.moment() {
			w.stopped = true
			break
		}
	}
	return w.settled()
}

// settled checks that world and state agree in the end on who runs.
func (w *world) settled() error {
	holding := 0
	w.state.EachHolding(func(*cluster.Job) bool { holding++; return true })
	if holding != w.running {
		return fmt.Errorf("at the end, at %s, the state has %d jobs that hold GPUs, the world has %d: the replay is wrong", w.since(), holding, w.running)
	}
	if w.real != nil {
		return w.real.settled()
	}
	return nil
}

// decide asks the scheduler, applies what it says and lets the agents obey, until it has nothing more to say. It
// returns when to ask again if nothing else happens (0: not), and whether anything was done.
func (w *world) decide() (wake cluster.Time, acted bool, err error) {
	if w.real != nil && !w.real.leading {
		return 0, false, nil
	}
	for range maxRounds {
		cmds, next := w.sched.Step(&w.state, w.now)
		if len(cmds) == 0 {
			if next > 0 {
				next = max(next, w.now+1)
			}
			return next, acted, nil
		}
		changed := false
		for _, c := range cmds {
			r := w.apply(c)
			changed = changed || len(r.Changes) > 0
			switch {
			case r.Code == cluster.OK:
				if w.eyes != nil {
					w.eyes.decided(c)
				}
				w.obey(c)
			case w.cfg.Check:
				return 0, acted, fmt.Errorf("the scheduler proposed what its own state refuses, at %s: %T: %s", w.since(), c, r.Message)
			default:
				w.rejected++
			}
		}
		if !changed {
			return 0, acted, fmt.Errorf("the scheduler proposed %d commands, the first a %T, and none changed anything, at %s: it would do so for ever",
				len(cmds), cmds[0], w.since())
		}
		acted = true
	}
	return 0, acted, fmt.Errorf("the scheduler still had something to say after %d decisions in one moment, at %s", maxRounds, w.since())
}

// check verifies the whole state, if that was asked for.
func (w *world) check() error {
	if w.real != nil && w.real.broken != nil {
		return w.real.broken
	}
	if !w.cfg.Check {
		return nil
	}
	if err := w.state.Check(); err != nil {
		return fmt.Errorf("a rule of the state is broken at %s: %w", w.since(), err)
	}
	return nil
}

func (w *world) since() string { return w.now.Sub(genesis).String() }
