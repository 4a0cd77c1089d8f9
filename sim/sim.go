package sim

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// Error is a run in which something was wrong: an invariant broken, or a job that never ended.
type Error struct {
	Seed    uint64
	Command string   // the command line that repeats the run; empty: the run was of a scenario, which its caller has
	Events  []string // the last happenings before it, the oldest first
	Cause   error
}

// Error returns the cause, how to repeat the run, and what happened last, on several lines.
func (e *Error) Error() string {
	repeat := ""
	if e.Command != "" {
		repeat = "\nrepeat it with: " + e.Command
	}
	return fmt.Sprintf("simulation with seed %d: %s%s\nlast events:\n  %s", e.Seed, e.Cause, repeat, strings.Join(e.Events, "\n  "))
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Run plays one run to its end. It returns *Error if an invariant broke or a job did not end, and another error if cfg
// is invalid. With *Error, the report says how far the run came. Run keeps nothing: any number of runs may go on at once.
func Run(cfg Config) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, fmt.Errorf("simulation config: %w", err)
	}
	r, err := play(newWorld(Draw(cfg)))
	if err != nil {
		err.Command = cfg.Command()
		return r, err
	}
	return r, nil
}

// Play is Run for a scenario, which it does not change.
func Play(sc *Scenario) (Report, error) {
	if err := sc.Validate(); err != nil {
		return Report{}, fmt.Errorf("scenario: %w", err)
	}
	r, err := play(newWorld(sc))
	if err != nil {
		return r, err
	}
	return r, nil
}

// play plays a world to its end. A panic of the code under test is a failure like any other.
func play(w *world) (r Report, failed *Error) {
	fails := func(cause error) *Error {
		return &Error{Seed: w.script.Seed, Events: w.trace.lines(), Cause: cause}
	}
	defer func() {
		if p := recover(); p != nil {
			failed = fails(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
			r = Report{Seed: w.script.Seed, VirtualSeconds: w.clock.elapsed().Seconds()}
		}
	}()
	if err := w.run(); err != nil {
		failed = fails(err)
	}
	return w.report(), failed
}
