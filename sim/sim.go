package sim

import (
	"fmt"
	"strings"
)

// Error is a run in which something was wrong: an invariant broken, or a job that never ended.
type Error struct {
	Seed    uint64
	Command string   // the command line that repeats the run
	Events  []string // the last happenings before it, the oldest first
	Cause   error
}

// Error returns the cause, how to repeat the run, and what happened last, on several lines.
func (e *Error) Error() string {
	return fmt.Sprintf("simulation with seed %d: %s\nrepeat it with: %s\nlast events:\n  %s", e.Seed, e.Cause, e.Command, strings.Join(e.Events, "\n  "))
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Run plays one run to its end. It returns *Error if an invariant broke or a job did not end, and another error if cfg
// is invalid. With *Error, the report says how far the run came. Run keeps nothing: any number of runs may go on at once.
func Run(cfg Config) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, fmt.Errorf("simulation config: %w", err)
	}
	w := newWorld(cfg)
	if err := w.run(); err != nil {
		return w.report(), &Error{Seed: cfg.Seed, Command: cfg.Command(), Events: w.trace.lines(), Cause: err}
	}
	return w.report(), nil
}
