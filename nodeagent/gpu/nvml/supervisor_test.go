package nvml

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAKilledProbeMayTakeAMoment: a process that a busy machine has not ended yet is not one that hangs in the driver, for which a node is to be
// rebooted; one that never ends is, and costs the wait once.
func TestAKilledProbeMayTakeAMoment(t *testing.T) {
	t.Parallel()
	dying := func() (*supervisor, *child, chan struct{}) {
		_, stdin := io.Pipe()
		c := &child{cmd: &exec.Cmd{Process: &os.Process{Pid: -1}}, stdin: stdin, abandon: make(chan struct{}), exited: make(chan struct{})}
		c.release() // a Pid of -1 is no process: nothing is killed
		quit := make(chan struct{})
		cfg := Config{Command: []string{"/nonexistent/probe"}, Log: slog.New(slog.DiscardHandler)}.withDefaults()
		return &supervisor{cfg: cfg, quit: quit, last: c}, c, quit
	}
	const hangs, next = "does not end", "/nonexistent/probe"
	synctest.Test(t, func(t *testing.T) {
		s, c, _ := dying()
		time.AfterFunc(reapWait-time.Millisecond, func() { close(c.exited) })
		if err := s.start(); err == nil || strings.Contains(err.Error(), hangs) || !strings.Contains(err.Error(), next) {
			t.Errorf("%v, want that the next process was tried", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, _, _ := dying()
		for call, want := range []time.Duration{reapWait, 0, 0} {
			began := time.Now()
			if err := s.start(); err == nil || !strings.Contains(err.Error(), hangs) {
				t.Errorf("start %d: %v, want that the process hangs", call, err)
			}
			if took := time.Since(began); took != want {
				t.Errorf("start %d took %v, want %v", call, took, want)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, _, quit := dying()
		time.AfterFunc(time.Millisecond, func() { close(quit) })
		began := time.Now()
		if err := s.start(); !errors.Is(err, errStopped) || time.Since(began) != time.Millisecond {
			t.Errorf("%v after %v, want the end with the client's", err, time.Since(began))
		}
	})
}
