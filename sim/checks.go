package sim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// checker holds the state to what must always be true.
type checker struct {
	w         *world
	now       cluster.Time
	index     uint64
	commands  int
	sinceFull int
	full      int                        // full checks made
	check     func(*cluster.State) error // State.Check, or a test's
}

func newChecker(w *world) *checker {
	return &checker{w: w, check: (*cluster.State).Check}
}

// fullEvery is how many commands one full check must pay for: a full check of a state with this many jobs and nodes
// is made after every command, of one with ten times as many after every tenth.
const fullEvery = 512

// afterCommand checks what one command did to the leader's state.
func (c *checker) afterCommand(cmd cluster.Command, r cluster.Result) error {
	s := c.w.servers.state()
	c.commands++
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Now() < c.now || s.Index() < c.index {
		bad("the state went back from index %d to %d, or from time %d to %d", c.index, s.Index(), c.now, s.Now())
	}
	c.now, c.index = s.Now(), s.Index()
	if r.Code != cluster.OK && len(r.Changes) > 0 {
		bad("%s was refused, and yet changed %d objects", describe(cmd), len(r.Changes))
	}
	if sub, ok := cmd.(*cluster.SubmitJob); ok && r.Code == cluster.OK {
		errs = append(errs, c.submitted(sub, r))
	}
	for _, ch := range r.Changes {
		if ch.Job != 0 {
			errs = append(errs, c.jobChanged(cmd, ch.Job))
		}
	}
	if st, ok := cmd.(*cluster.StartJob); ok && r.Code == cluster.OK && c.w.set.Varied {
		errs = append(errs, c.followed(s.Job(st.Job)))
		errs = append(errs, checkBounds(s, s.Job(st.Job)))
	}
	c.sinceFull++
	every := c.w.set.CheckEvery
	if every == 0 {
		every = 1 + (s.Jobs()+s.Nodes())/fullEvery
	}
	if c.sinceFull >= every {
		c.sinceFull = 0
		errs = append(errs, c.whole())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("after %s: %w", describe(cmd), err)
	}
	return nil
}

// followed says whether what a job that has just started was to wait for has
// ended as it asks, by what the simulator saw.
func (c *checker) followed(j *cluster.Job) error {
	for _, d := range c.w.clients.byID(j.ID).spec.Dependencies() { // as its client asked
		first := c.w.clients.byID(d.Job)
		all := []*job{first}
		if first.spec.Array.Step > 0 && first.id == first.first {
			all = c.w.clients.ids[first.id-1 : first.id-1+cluster.JobID(first.spec.Array.Count())] //nolint:gosec // positive
		}
		good := true
		for _, o := range all {
			if !o.state.Final() {
				return fmt.Errorf("job %d has started after %s, and job %d is %s", j.ID, d, o.id, o.state)
			}
			good = good && o.state == cluster.Succeeded
		}
		if d.Cond == cluster.AfterOK && !good || d.Cond == cluster.AfterNotOK && good {
			return fmt.Errorf("job %d has started after %s, which ended otherwise", j.ID, d)
		}
	}
	return nil
}

// submitted checks that a request makes one job, once.
func (c *checker) submitted(cmd *cluster.SubmitJob, r cluster.Result) error {
	clients := c.w.clients
	j := clients.byRequest[cmd.RequestID]
	switch {
	case j == nil:
		return fmt.Errorf("job %d was made for a request %q that nobody sent", r.Job, cmd.RequestID)
	case j.id == r.Job && r.Duplicate:
		return nil
	case j.id != 0:
		return fmt.Errorf("%s made job %d, and now job %d too", cmd.RequestID, j.id, r.Job)
	case r.Duplicate || int(r.Job) != len(clients.ids)+1:
		return fmt.Errorf("%s made job %d (duplicate %t): expected a new job %d", cmd.RequestID, r.Job, r.Duplicate, len(clients.ids)+1)
	}
	j.id, j.first = r.Job, r.Job
	clients.ids = append(clients.ids, j)
	clients.members(j)
	return nil
}

// jobChanged checks one job's step through its life, and takes the measures of it.
func (c *checker) jobChanged(cmd cluster.Command, id cluster.JobID) error {
	j := c.w.clients.byID(id)
	if j == nil {
		return fmt.Errorf("job %d was never submitted", id)
	}
	now := c.w.servers.state().Job(id)
	if j.seen == c.commands {
		return nil // one command may name a job twice
	}
	j.seen = c.commands
	if now == nil {
		if _, ok := cmd.(*cluster.ForgetJobs); ok && j.state.Final() {
			return nil
		}
		return fmt.Errorf("job %d (%s) has vanished", id, j.state)
	}
	_, isStart := cmd.(*cluster.StartJob)
	step := int64(0)
	if now.Checkpoint != nil {
		step = now.Checkpoint.Step
	}
	switch {
	case now.RequestID != j.request:
		return fmt.Errorf("job %d is of %s, and was of %s", id, now.RequestID, j.request)
	case j.state == 0 && now.State != cluster.Pending && !(now.State == cluster.Cancelled && j.follows != 0):
		return fmt.Errorf("job %d begins as %s", id, now.State)
	case j.state != 0 && j.state != now.State && !cluster.Legal(j.state, now.State):
		return fmt.Errorf("job %d went from %s to %s", id, j.state, now.State)
	case j.state.Final():
		return fmt.Errorf("job %d changed although it was %s", id, j.state)
	case isStart && now.Epoch != j.epoch+1, !isStart && now.Epoch != j.epoch:
		return fmt.Errorf("job %d went from epoch %d to %d", id, j.epoch, now.Epoch)
	case step < j.step:
		return fmt.Errorf("job %d went back from checkpoint step %d to %d", id, j.step, step)
	}
	was := j.state
	j.state, j.epoch, j.step = now.State, now.Epoch, step
	c.w.meter.changed(j, was, now)
	if was != j.state && j.state.Final() {
		c.w.clients.open--
	}
	return nil
}

// whole checks the whole state, and that no acknowledged submission is lost.
func (c *checker) whole() error {
	c.full++
	s := c.w.servers.state()
	if err := c.check(s); err != nil {
		return err
	}
	for _, j := range c.w.clients.jobs {
		if j.acked && !j.final() && s.Job(j.id) == nil {
			return fmt.Errorf("%s was acknowledged as job %d, which is lost", j.request, j.id)
		}
	}
	return nil
}

// notLive says what has not ended in time.
func (c *checker) notLive(bound time.Duration) error {
	var late []string
	for _, j := range c.w.clients.jobs {
		if !j.final() && len(late) < 5 {
			what := fmt.Sprintf("%s (not in the state)", j.request)
			if sj := c.w.servers.state().Job(j.id); sj != nil {
				what = fmt.Sprintf("job %d is %s in epoch %d: %s", sj.ID, sj.State, sj.Epoch, sj.Reason)
			}
			late = append(late, what)
		}
	}
	c.w.servers.state().EachNode(func(n *cluster.Node) bool {
		if (n.State != cluster.NodeReady || len(n.Stale) > 0) && len(late) < 8 {
			late = append(late, fmt.Sprintf("node %s (%s) is %s with %d stale workers: %s", n.Name, n.ID, n.State, len(n.Stale), n.Reason))
		}
		return true
	})
	return fmt.Errorf("not live: %s after the last fault, %d workers run and %d jobs or answers are missing: %s",
		bound, c.w.machine.alive, c.w.clients.open, strings.Join(late, "; "))
}

// atEnd checks what must be true once nothing is left to do.
func (c *checker) atEnd() error {
	s := c.w.servers
	for range 2 { // the second one rebuilds a server from the snapshot of the first
		if err := s.restoreAndSnapshot((s.leader + 1) % len(s.all)); err != nil {
			return err
		}
	}
	if err := c.whole(); err != nil {
		return fmt.Errorf("at the end: %w", err)
	}
	if n := len(c.w.machine.holders) + len(c.w.machine.gangs); n > 0 {
		return fmt.Errorf("at the end no worker is left, and yet %d GPUs or gangs are in use", n)
	}
	for _, j := range c.w.clients.jobs {
		if !j.fits && !j.gone && j.state != cluster.Cancelled {
			return fmt.Errorf("%s can never fit, and yet ended as %s", j.request, j.state)
		}
	}
	return nil
}
