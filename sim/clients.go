package sim

import (
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

const (
	retryDelay   = 5 * time.Second  // longest time after which a client asks again
	patience     = 10 * time.Minute // after which a client gives up a job that can never start
	repeatWithin = time.Hour        // in which a client may send a submission again
)

// clients are the people and programs that submit the workload. Each keeps its request id and asks again until it
// has an answer.
type clients struct {
	w         *world
	jobs      []*job
	byRequest map[string]*job
	ids       []*job // by job id - 1
	open      int    // jobs that are not final yet, and questions without an answer
}

func newClients(w *world, jobs []*job) *clients {
	c := &clients{w: w, jobs: jobs, byRequest: map[string]*job{}, open: len(jobs)}
	for _, j := range jobs {
		c.byRequest[j.request] = j
	}
	return c
}

// byID is the job with an id, or nil.
func (c *clients) byID(id cluster.JobID) *job {
	if id == 0 || int(id) > len(c.ids) {
		return nil
	}
	return c.ids[id-1]
}

func (c *clients) begin() {
	for _, j := range c.jobs {
		c.w.clock.after(j.arrives, func() { c.submit(j) })
	}
}

// submit sends a job's submission until it is answered.
func (c *clients) submit(j *job) {
	c.follow(j)
	c.w.leader.propose(&proposal{
		cmds: []cluster.Command{&cluster.SubmitJob{RequestID: j.request, User: j.user, Spec: j.spec}},
		done: func(o outcome, rs []cluster.Result) {
			if o == unknown {
				c.w.faults.SubmitsRetried++
				c.w.clock.after(c.w.upTo(retryDelay), func() { c.submit(j) })
				return
			}
			c.answered(j, rs[0])
		},
	})
}

// follow lets a job that is to follow another one name it: one that was
// acknowledged lately, so that it is still known. The request then stays as it is.
func (c *clients) follow(j *job) {
	if j.follows == 0 || j.spec.After != nil {
		return
	}
	for back := range min(len(c.ids), 20) {
		if o := c.ids[len(c.ids)-1-back]; o.acked && c.w.servers.state().Job(o.id) != nil && (o.id+cluster.JobID(j.arrives))%3 == 0 { //nolint:gosec // not negative
			spec := *j.spec
			spec.After = &cluster.Conditions{All: []cluster.Dependency{{Job: o.id, Cond: j.follows}}}
			j.spec = &spec
			return
		}
	}
	j.follows = 0 // nobody to follow
}

// answered takes the answer to a first submission.
func (c *clients) answered(j *job, r cluster.Result) {
	switch r.Code {
	case cluster.OK:
	case cluster.NotFound:
		if j.follows == 0 || c.w.servers.state().Job(j.spec.After.All[0].Job) != nil {
			c.w.fail(fmt.Errorf("%s is refused, and yet the job that it follows is known: %s", j.request, r.Message))
		}
		j.gone = true // the job that it was to follow has been forgotten meanwhile
		c.open--
		return
	case cluster.NeverFits:
		if j.fits && !c.w.set.Varied && c.w.servers.state().Nodes() >= len(c.w.agents) {
			c.w.fail(fmt.Errorf("%s is refused, and yet the cluster could run it: %s", j.request, r.Message))
		}
		j.gone = true
		c.open--
		return
	default:
		c.w.fail(fmt.Errorf("%s is refused (code %d): %s", j.request, r.Code, r.Message))
		return
	}
	if j.acked = true; j.id != r.Job {
		c.w.fail(fmt.Errorf("%s was acknowledged as job %d, and is job %d", j.request, r.Job, j.id))
	}
	if !j.fits {
		c.open++
		c.w.clock.after(patience, func() { c.cancel(j) })
	} else if j.cancelAt > 0 {
		c.open++
		c.w.faults.Cancels++
		c.w.clock.after(j.cancelAt, func() { c.cancel(j) })
	}
	if c.w.happens(submitRepeated) {
		c.open++
		c.w.faults.SubmitsRepeated++
		c.w.clock.after(c.w.upTo(repeatWithin), func() { c.repeat(j) })
	}
}

// repeat sends an acknowledged submission again: the answer must be the same job.
func (c *clients) repeat(j *job) {
	c.w.leader.propose(&proposal{
		cmds: []cluster.Command{&cluster.SubmitJob{RequestID: j.request, User: j.user, Spec: j.spec}},
		done: func(o outcome, rs []cluster.Result) {
			if o == unknown {
				c.w.clock.after(c.w.upTo(retryDelay), func() { c.repeat(j) })
				return
			}
			c.open--
			if rs[0].Code != cluster.OK || rs[0].Job != j.id || !rs[0].Duplicate {
				c.w.fail(fmt.Errorf("%s was acknowledged as job %d; sent again, it is answered with job %d, duplicate %t, code %d %s",
					j.request, j.id, rs[0].Job, rs[0].Duplicate, rs[0].Code, rs[0].Message))
			}
		},
	})
}

// cancel cancels a job until that is answered. A job that is forgotten by then was final.
func (c *clients) cancel(j *job) {
	c.w.leader.propose(&proposal{
		cmds: []cluster.Command{&cluster.CancelJob{Job: j.id, By: "sim"}},
		done: func(o outcome, rs []cluster.Result) {
			if o == unknown {
				c.w.clock.after(c.w.upTo(retryDelay), func() { c.cancel(j) })
				return
			}
			c.open--
			if rs[0].Code != cluster.OK && !j.final() {
				c.w.fail(fmt.Errorf("job %d cannot be cancelled: %s", j.id, rs[0].Message))
			}
		},
	})
}

// members adds the other members of an array, which one request made.
func (c *clients) members(j *job) {
	for i := range j.spec.Array.Count() - 1 {
		m := *j
		m.id, m.seen, m.cancelAt, m.failsAt = j.id+cluster.JobID(i)+1, 0, 0, 0
		m.acked = true
		c.jobs = append(c.jobs, &m)
		c.ids = append(c.ids, &m)
		c.open++
	}
}

// drainBound is a time within which all unfinished jobs end if nothing breaks, even one after the other.
func (c *clients) drainBound() time.Duration {
	bound := time.Hour + repeatWithin
	for _, j := range c.jobs {
		if j.final() || !j.fits {
			continue
		}
		bound += 2*j.service + 2*j.cancelAt + 4*(time.Duration(c.w.set.StartDelay)+j.spec.Warn+j.spec.Grace) + time.Minute
		if c.w.set.Varied { // it may be stopped for others again and again, but not for ever
			bound += 2 * j.service
		}
	}
	return bound
}
