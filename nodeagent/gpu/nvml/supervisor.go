package nvml

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
)

// supervisor owns the child process and what is known of the GPUs. One goroutine runs it.
type supervisor struct {
	cfg  Config
	quit <-chan struct{}

	child *child // nil while there is none that answers
	last  *child // the latest process, which may not be reaped yet

	failure error         // why there is no child; nil before the first start
	backoff time.Duration // the pause that the last failure earned
	retryAt time.Time     // no start before this

	known    []gpu.GPU // every GPU ever seen, as last shown
	degraded bool      // the last inventory had a sick or missing GPU
}

// run answers calls until quit, then ends the process.
func (s *supervisor) run(calls <-chan call) {
	for {
		select {
		case c := <-calls:
			c.reply <- s.answer(c.op)
		case <-s.quit:
			if s.last != nil {
				s.last.release()
				s.last.await(reapWait)
			}
			return
		}
	}
}

// answer runs one operation, starting a probe first if needed and allowed.
func (s *supervisor) answer(o op) result {
	if s.child != nil && o == opGPUs && s.degraded && time.Since(s.child.started) >= s.cfg.ReattachEvery {
		s.child.release()
		s.child.await(reapWait)
		s.child = nil
	}
	resp, err := s.ask(o)
	if err != nil {
		return s.sick(o, err)
	}
	if o == opSamples {
		return result{samples: resp.Samples}
	}
	s.learn(resp)
	return result{gpus: append([]gpu.GPU(nil), s.known...)}
}

// ask runs one operation on a live child; each failure costs the child and earns a pause.
func (s *supervisor) ask(o op) (response, error) {
	if s.child == nil {
		if time.Now().Before(s.retryAt) {
			return response{}, s.failure
		}
		if err := s.start(); err != nil {
			return response{}, s.fail(err)
		}
	}
	resp, err := s.child.call(request{Op: o}, s.cfg.CallTimeout, s.quit)
	if err == nil {
		err = classified(resp)
	}
	if err != nil {
		return response{}, s.fail(err)
	}
	return resp, nil
}

// start runs a new process and attaches it to the driver.
func (s *supervisor) start() error {
	if s.last != nil && !s.last.ended(s.quit) {
		if stopped(s.quit) {
			return errStopped
		}
		// Never pile up processes that hang in the driver: one is enough to know.
		return fmt.Errorf("gpu-probe process %d was killed but does not end (it hangs in the driver): drain the node and reboot it", s.last.cmd.Process.Pid)
	}
	c, err := startChild(s.cfg.Command, s.cfg.Env)
	if err != nil {
		return err
	}
	s.child, s.last = c, c
	resp, err := c.call(request{Op: opInit, Library: s.cfg.Library}, s.cfg.StartTimeout, s.quit)
	if err != nil {
		return err
	}
	return classified(resp)
}

// fail gives the child up and sets the pause. A child that had lived for long resets it: only failures in
// short order are a loop.
func (s *supervisor) fail(err error) error {
	if errors.Is(err, errStopped) {
		return err
	}
	stable := s.child != nil && time.Since(s.child.started) > s.cfg.BackoffMax
	if s.child != nil {
		s.child.release()
		s.child = nil
	}
	if s.backoff = min(2*s.backoff, s.cfg.BackoffMax); stable || s.backoff == 0 {
		s.backoff = s.cfg.BackoffMin
	}
	s.retryAt = time.Now().Add(s.backoff)
	known := s.failure != nil && s.failure.Error() == err.Error()
	if !known && !errors.Is(err, gpu.ErrNoDriver) { // a node without GPUs is no fault; the caller decides
		s.cfg.Log.Warn("NVML does not answer; trying again", "err", err, "retry_in", s.backoff)
	}
	s.failure = err
	return err
}

// sick is the answer while NVML is away: the known GPUs, none of them healthy.
func (s *supervisor) sick(o op, err error) result {
	if o == opSamples || len(s.known) == 0 || errors.Is(err, errStopped) {
		return result{err: err}
	}
	for i := range s.known {
		s.known[i].Health = gpu.Health{Reason: err.Error()}
	}
	return result{gpus: append([]gpu.GPU(nil), s.known...)}
}

// board is the UUID of the GPU that g is, or is an instance of.
func board(g gpu.GPU) string {
	if g.Parent != "" {
		return g.Parent
	}
	return g.UUID
}

// learn merges an inventory into what is known: a GPU that is no longer listed stays, unhealthy, unless it is only
// divided in another way.
func (s *supervisor) learn(resp response) {
	if s.failure != nil {
		s.cfg.Log.Info("NVML answers again", "gpus", len(resp.GPUs))
		s.failure = nil
	}
	listed := make(map[string]bool, len(resp.GPUs))
	next := append([]gpu.GPU(nil), resp.GPUs...)
	s.degraded = len(resp.Missing) > 0
	for _, g := range resp.GPUs {
		listed[g.UUID], listed[board(g)] = true, true
		s.degraded = s.degraded || !g.Health.Healthy
	}
	for _, g := range s.known {
		if listed[g.UUID] || listed[board(g)] {
			continue // as it was, or its board is divided into other MIG instances now
		}
		reason := "the driver does not list this GPU any more: see the kernel log, drain the node and reboot it"
		if gpu.IsInstance(g.UUID) {
			reason = "the driver does not list this MIG instance any more"
		}
		if len(resp.Missing) > 0 {
			reason += " (" + strings.Join(resp.Missing, "; ") + ")"
		}
		g.Health = gpu.Health{Reason: reason}
		next = append(next, g)
		s.degraded = true
	}
	sortGPUs(next)
	if len(resp.Missing) > 0 && len(s.known) == 0 {
		s.cfg.Log.Warn("some GPUs cannot be identified and are left out", "missing", resp.Missing)
	}
	s.known = next
}
