package forecast

import (
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Courses lets a cluster go on from a state, all of it, again and again: with
// lengths of jobs drawn anew each time, or after something has changed. One
// goroutine uses it at a time.
type Courses struct {
	cfg     control.Config
	s       *cluster.State
	now     cluster.Time
	lengths *lengths
}

// NewCourses begins at a state as it is at a time, for a leader that steps by
// cfg. The state must not change; a snapshot will do.
func NewCourses(s *cluster.State, now cluster.Time, cfg control.Config) *Courses {
	now = max(now, s.Now())
	return &Courses{cfg: cfg, s: s, now: now, lengths: newLengths(s, now, cfg.Planner.Length)}
}

// Now is when all courses begin.
func (c *Courses) Now() cluster.Time { return c.now }

// Basis is what lengths of jobs go by. By less than BasisLearned many never end.
func (c *Courses) Basis() Basis { return c.lengths.basis() }

// Course is how the cluster is to go on.
type Course struct {
	// Change is what is done to the state first, a fork of its own. Nil: nothing.
	Change func(*cluster.State) error
	// Run numbers the draws of lengths, from 0. In one run a job has the same
	// length in all courses.
	Run int
	// Horizon is how far to look ahead, Work what it may cost, in units of about
	// a microsecond.
	Horizon time.Duration
	Work    int64
	// Arrivals gives the jobs that are yet to come, in order of their times; nil:
	// none.
	Arrivals func() (Arrival, bool)
	// Seen is called for each job that a command has changed, as it is then.
	Seen func(cluster.Time, *cluster.Job)
}

// Arrival is a job that is yet to come.
type Arrival struct {
	At     time.Duration // from the course's beginning
	User   string
	Spec   *cluster.JobSpec
	Length time.Duration // with all its GPUs; 0: drawn, as other jobs' lengths are
}

// Ending is how a course ended.
type Ending struct {
	State   *cluster.State
	At      cluster.Time // how far it looked
	Whole   bool         // as far as asked, or until nothing more was to come
	Refused int          // arrivals that the cluster would not take
}

// Run lets the cluster go on. It returns an error if the change does.
func (c *Courses) Run(course Course) (*Ending, error) {
	fork := c.s.Fork(nil)
	if course.Change != nil {
		if err := course.Change(fork); err != nil {
			return nil, err
		}
	}
	w := newWorld(fork, c.cfg, c.lengths, course.Run, c.now, course.Work, paceFor(c.s, c.cfg, course.Work))
	w.horizon, w.seen = course.Horizon, course.Seen
	if course.Arrivals != nil {
		w.arrivals = &arrivals{began: c.now, more: course.Arrivals, need: map[cluster.JobID]int64{}}
		w.arrivals.advance()
	}
	w.until(0)
	end := &Ending{State: fork, At: w.now, Whole: w.left > 0}
	if end.Whole {
		end.At = c.now.Add(course.Horizon) // nothing more happens until then
	}
	if w.arrivals != nil {
		end.Refused = w.arrivals.refused
	}
	return end, nil
}

// arrivals are the jobs that are yet to come in a course. Nil: none.
type arrivals struct {
	began   cluster.Time
	more    func() (Arrival, bool)
	ahead   Arrival // the next one
	some    bool    // there is a next one
	count   int
	refused int
	need    map[cluster.JobID]int64 // GPU time of those whose length is given, in milli-GPU-milliseconds
}

func (a *arrivals) advance() { a.ahead, a.some = a.more() }

// next is when the next one comes.
func (a *arrivals) next() (cluster.Time, bool) {
	if a == nil || !a.some {
		return 0, false
	}
	return a.began.Add(a.ahead.At), true
}

// total is the GPU time that one of them needs, if that is given.
func (a *arrivals) total(id cluster.JobID) (int64, bool) {
	if a == nil {
		return 0, false
	}
	need, ok := a.need[id]
	return need, ok
}

// arrive submits what comes now.
func (w *world) arrive() {
	a := w.arrivals
	for {
		if at, ok := a.next(); !ok || at > w.now {
			return
		}
		x := a.ahead
		a.count++
		r := w.apply(&cluster.SubmitJob{RequestID: fmt.Sprintf("arrival-%d", a.count), User: x.User, Spec: x.Spec})
		w.left -= workPerCommand
		switch {
		case r.Code != cluster.OK:
			a.refused++
		case x.Length > 0:
			a.need[r.Job] = x.Length.Milliseconds() * int64(x.Spec.GPUs) * int64(x.Spec.Share())
		}
		a.advance()
	}
}
