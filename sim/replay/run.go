package replay

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds that turn an endless replay into an error or an end.
const (
	maxRounds = 1 << 16 // of decisions in one moment
	maxIdle   = 1 << 14 // looks at a cluster in which nothing runs, nothing comes and nothing starts
	// maxQuiet is how long it must have been like that, too, where things are repaired and come back.
	maxQuiet = 40 * 24 * time.Hour
)

// Run replays a trace and reports what happened. It returns an error if the config is wrong, the trace cannot be read,
// or the scheduler broke one of its own rules; a job that never runs is part of the report. Its memory grows with the
// jobs that are unfinished at one time, not with the trace.
func Run(cfg Config, tr *Trace) (*Report, error) {
	return runWith(&cfg, tr, newScheduler)
}

// runWith is Run with any scheduler; each part of the trace has one of its own.
func runWith(cfg *Config, tr *Trace, sched func(*world) scheduler) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s, parts := &survey{}, []part{{nodes: tr.Nodes}}
	if cfg.Partitions || cfg.Quotas {
		var err error
		if s, err = look(tr); err != nil {
			return nil, err
		}
	}
	if cfg.Partitions {
		parts = partition(s.queues, tr.Nodes)
	}
	eyes := newObserver(cfg.Watch, s.jobs)
	sum := newSummary(cfg.Exact)
	if cfg.Partitions {
		sum.window = s.window
	}
	for _, p := range parts {
		w, err := newWorld(cfg, s.queues, p.nodes)
		if err != nil {
			return nil, err
		}
		w.renew = sched
		w.meter.window, w.tally, w.eyes = &sum.window, sum.tally, eyes
		w.sched = sched(w)
		if err := w.play(tr, p.queue, sum); err != nil {
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

// play feeds the world its part of a workload, and plays to the end.
func (w *world) play(tr *Trace, queue string, sum *summary) error {
	f, err := newFeed(tr, queue)
	if err != nil {
		return err
	}
	w.eyes.enter(w, queue, f)
	err = w.follow(f, sum)
	sum.rep.Skipped = f.without + f.src.Skipped() // of the whole trace, whichever part it is read for
	if err = errors.Join(err, f.src.Close()); err != nil {
		return err
	}
	return w.eyes.leave()
}

// follow plays moment after moment in which jobs come, and then what is left.
func (w *world) follow(f *feed, sum *summary) error {
	for first := true; !w.stopped; first = false {
		at, jobs, err := f.moment()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if queue := f.queue; queue == "" { // else the window is known
			if first {
				sum.window.from = genesis.Add(at)
			}
			if sum.window.to = forever; f.last() {
				sum.window.to = genesis.Add(at)
			}
		}
		if err := w.run(jobs); err != nil {
			return err
		}
	}
	if err := w.run(nil); err != nil {
		return err
	}
	if sum.window.to == forever { // it was stopped
		sum.window.to = max(w.now, sum.window.from)
	}
	return w.settled()
}

// run plays until some jobs, all of one moment, have come; without jobs, until nothing is left to happen.
func (w *world) run(jobs []arrival) error {
	toEnd := len(jobs) == 0
	for w.idle = 0; !w.over && !w.stopped; {
		// 1. When does something happen next?
		at := w.wake
		soon := func(t cluster.Time) {
			if at == 0 || t < at {
				at = t
			}
		}
		if len(w.events) > 0 {
			soon(w.events[0].at)
		}
		if len(jobs) > 0 {
			soon(genesis.Add(jobs[0].job.Submit))
		}
		if w.real != nil {
			if toEnd && w.real.over() {
				break
			}
			if t := w.real.next(); t != 0 {
				soon(t)
			}
		}
		if at == 0 || w.idle > maxIdle && (w.real == nil || w.now.Sub(w.busy) > maxQuiet) {
			break
		}
		if end := genesis.Add(w.cfg.Until); w.cfg.Until > 0 && at > end {
			w.now, w.over = end, true
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
		if len(jobs) > 0 && genesis.Add(jobs[0].job.Submit) <= w.now {
			for i := range jobs {
				w.fired++
				w.come(&jobs[i])
			}
			jobs = nil
		}
		// 3. The leader decides until it has nothing more to say.
		acted, err := false, error(nil)
		if w.wake, acted, err = w.decide(); err != nil {
			return err
		}
		if w.idle++; acted || w.running > 0 || len(jobs) > 0 {
			w.idle, w.busy = 0, w.now
		}
		if err := w.check(); err != nil {
			return err
		}
		if w.eyes != nil && !w.eyes.moment() {
			w.stopped = true
		}
		if len(jobs) == 0 && !toEnd {
			break
		}
	}
	for i := range jobs { // they come too late
		w.tally.of(jobs[i].job.Queue).jobs++
	}
	return nil
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
