package worker

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// defaultMaxLogBytes is the size of a log segment when the spec names none: a stream then takes 128 MiB at most.
	defaultMaxLogBytes = 64 << 20
	// minMaxLogBytes keeps rotation rarer than one read of the pipe, so that a follower can keep up.
	minMaxLogBytes = 64 << 10
	// defaultGrace is the time between SIGTERM and SIGKILL when the spec names none.
	defaultGrace = 30 * time.Second
	// maxStopWait bounds both phases of a stop: longer ones are surely a mistake of units.
	maxStopWait = 24 * time.Hour
	// defaultWarnSignal is the first signal of the stop handshake.
	defaultWarnSignal = "SIGUSR1"
)

// Key names one worker for ever: a rank of a job in one epoch. The same Key is started at most once on a node.
type Key struct {
	Job   uint64 `json:"job"`
	Epoch uint64 `json:"epoch"`
	Rank  int    `json:"rank"`
}

// String returns "JOB-EPOCH-RANK", which is also the name of the worker's directory.
func (k Key) String() string {
	return fmt.Sprintf("%d-%d-%d", k.Job, k.Epoch, k.Rank)
}

// Compare orders keys by job, epoch, then rank; it returns -1, 0 or 1.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Job, o.Job), cmp.Compare(k.Epoch, o.Epoch), cmp.Compare(k.Rank, o.Rank))
}

// parseKey is the inverse of Key.String; it accepts only the exact spelling that String gives.
func parseKey(s string) (Key, bool) {
	parts := strings.Split(s, "-")
	if len(parts) != 3 {
		return Key{}, false
	}
	job, err1 := strconv.ParseUint(parts[0], 10, 64)
	epoch, err2 := strconv.ParseUint(parts[1], 10, 64)
	rank, err3 := strconv.Atoi(parts[2])
	key := Key{Job: job, Epoch: epoch, Rank: rank}
	return key, errors.Join(err1, err2, err3) == nil && key.String() == s
}

// Spec says what one worker runs. It is written to disk, with fsync, before anything starts.
type Spec struct {
	Key Key `json:"key"`
	// Command is the program and its arguments. A name without "/" is searched in the PATH of Env.
	Command []string `json:"command"`
	// Env is the worker's whole environment ("NAME=value"); nothing of the agent's own leaks into it. The supervisor
	// adds GANGLINE_WORKER_TOKEN, by which processes that escaped from their group are found again.
	Env []string `json:"env"`
	// Dir is the working directory, absolute; "" means "/".
	Dir string `json:"dir"`
	// GPUs are the UUIDs that the worker holds; carried for the agent, not interpreted.
	GPUs []string `json:"gpus,omitempty"`
	// Labels are the agent's own notes (job name, local rank...); carried, not interpreted.
	Labels map[string]string `json:"labels,omitempty"`
	// WarnSignal is the first signal of a stop, by name; "" means SIGUSR1.
	WarnSignal string `json:"warn_signal"`
	// Grace is the time between SIGTERM and SIGKILL when the supervisor itself is told to end (SIGTERM at machine
	// shutdown). A Stop brings its own. 0 means 30 s.
	Grace time.Duration `json:"grace_ns"`
	// MaxLogBytes is the size of one log segment; each of the two streams keeps the current and one older segment,
	// so a worker's logs take 4 times this at most. 0 means 64 MiB; values under 64 KiB are raised to that.
	MaxLogBytes int64 `json:"max_log_bytes"`
}

// withDefaults returns a checked copy of s with every zero value replaced.
func (s Spec) withDefaults() (Spec, error) {
	fail := func(why string) (Spec, error) {
		return Spec{}, fmt.Errorf("launch worker %v: %s", s.Key, why)
	}
	if len(s.Command) == 0 || s.Command[0] == "" {
		return fail("the command is empty: name the program to run")
	}
	if s.Key.Rank < 0 {
		return fail("the rank is negative")
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	if !filepath.IsAbs(s.Dir) {
		return fail(fmt.Sprintf("the working directory %q is not absolute: give the full path", s.Dir))
	}
	for _, v := range append(append([]string{s.Dir}, s.Command...), s.Env...) {
		if strings.IndexByte(v, 0) >= 0 {
			return fail(fmt.Sprintf("%q contains a NUL byte, which no program can receive", v))
		}
	}
	if s.WarnSignal == "" {
		s.WarnSignal = defaultWarnSignal
	}
	if _, err := parseSignal(s.WarnSignal); err != nil {
		return fail(err.Error())
	}
	if s.Grace <= 0 {
		s.Grace = defaultGrace
	}
	s.Grace = min(s.Grace, maxStopWait)
	if s.MaxLogBytes <= 0 {
		s.MaxLogBytes = defaultMaxLogBytes
	}
	s.MaxLogBytes = max(s.MaxLogBytes, minMaxLogBytes)
	return s, nil
}

// Stop says how a worker is to end: warning signal, Warn later SIGTERM, Grace later SIGKILL.
type Stop struct {
	// Warn is the time between the warning signal and SIGTERM, 0 to 24 h. 0 sends no warning at all.
	Warn time.Duration `json:"warn_ns"`
	// Grace is the time between SIGTERM and SIGKILL, 0 to 24 h. Warn and Grace both 0 kill at once.
	Grace time.Duration `json:"grace_ns"`
	// Reason is a sentence for people; it ends up in Status.StopReason.
	Reason string `json:"reason"`
	// Signal replaces the spec's warning signal for this stop; "" keeps it.
	Signal string `json:"signal,omitempty"`
}

// check returns s with its durations forced into range, or an error for an unknown signal.
func (s Stop) check() (Stop, error) {
	if s.Signal != "" {
		if _, err := parseSignal(s.Signal); err != nil {
			return Stop{}, err
		}
	}
	s.Warn = min(max(s.Warn, 0), maxStopWait)
	s.Grace = min(max(s.Grace, 0), maxStopWait)
	return s, nil
}

// parseSignal turns "SIGUSR1" into its number.
func parseSignal(name string) (syscall.Signal, error) {
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("signal %q is unknown: use a name like SIGUSR1 or SIGTERM", name)
}
