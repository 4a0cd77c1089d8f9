package whatif

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
	"github.com/gangline/gangline/scheduler/forecast"
)

// Question is a cluster and what would be otherwise.
type Question struct {
	State   *cluster.State // a snapshot
	Now     cluster.Time
	Control control.Config // how its leader decides
	Changes []Change       // none: only the cluster as it is
	Runs    int            // how often lengths are drawn, 1..MaxRuns
	Horizon time.Duration  // how far to look ahead, above 0
	Span    time.Duration  // over which GPUs in use are counted, above 0 and at most Horizon
	Work    int64          // of each course, in units of about a microsecond
	// Arrivals opens the jobs that are yet to come, the same ones each time; next returns io.EOF after the last. Nil: none.
	Arrivals func() (next func() (forecast.Arrival, error), err error)
	// Progress is told how many courses of how many have been run; if it returns false, the answer is of those. Nil: nobody.
	Progress func(done, all int) bool
}

// MaxRuns bounds Question.Runs.
const MaxRuns = 64

// DefaultQuestion has all but the state.
func DefaultQuestion() Question {
	return Question{Control: control.DefaultConfig(), Runs: 8, Horizon: 14 * 24 * time.Hour, Span: 24 * time.Hour, Work: 5_000_000}
}

// ErrStopped is returned if Progress ended it before the first run was whole.
var ErrStopped = errors.New("stopped before the first run was whole")

// Ask answers a question. It returns an error if a change cannot be made, such as the removal of a node that is not there.
func Ask(q Question) (*Answer, error) {
	if q.Runs < 1 || q.Runs > MaxRuns || q.Horizon <= 0 || q.Span <= 0 {
		return nil, fmt.Errorf("%d runs are not in 1..%d, or %s ahead and %s counted are not above 0", q.Runs, MaxRuns, q.Horizon, q.Span)
	}
	q.Span = min(q.Span, q.Horizon)
	c := forecast.NewCourses(q.State, q.Now, q.Control)
	if c.Basis() < forecast.BasisLearned && q.Arrivals == nil {
		q.Runs = 1 // all would be alike
	}
	sides := []*side{{}}
	if len(q.Changes) > 0 {
		sides = append(sides, &side{changes: q.Changes})
	}
	partial := false
	for run := 0; run < q.Runs; run++ {
		all := make([]*course, len(sides))
		whole := true
		for i, s := range sides {
			if q.Progress != nil && !q.Progress(run*len(sides)+i, q.Runs*len(sides)) {
				if run == 0 {
					return nil, ErrStopped
				}
				return answer(&q, c, sides, true), nil
			}
			var err error
			if all[i], err = s.play(&q, c, run); err != nil {
				return nil, err
			}
			whole = whole && all[i].whole
		}
		if !whole {
			// It was too much work: look less far, all over, so that both sides of all runs are of the same time.
			for _, x := range all {
				q.Horizon = min(q.Horizon, max(x.reached.Sub(c.Now())/2, time.Second))
			}
			q.Span = min(q.Span, q.Horizon)
			for _, s := range sides {
				s.courses = nil
			}
			if run, partial = -1, true; q.Horizon <= time.Second {
				return nil, fmt.Errorf("the cluster is too large to look ahead with so little work: allow more")
			}
			continue
		}
		for i, s := range sides {
			s.courses = append(s.courses, all[i])
		}
	}
	return answer(&q, c, sides, partial), nil
}

// side is the cluster as it is, or as it would be.
type side struct {
	changes []Change
	courses []*course
	nodes   int
	gpus    int // that may be given to jobs
}

// course is what was seen in one run.
type course struct {
	now, end, reached, spanEnd cluster.Time
	whole                      bool
	jobs                       map[string]*life
	order                      []string
	used                       float64 // GPU-seconds held within the span
	stops                      int
	refused                    int
}

// life is a job in one run.
type life struct {
	id          cluster.JobID
	spec        *cluster.JobSpec
	user        string
	coming      bool // it is not there yet when the course begins
	was         cluster.JobState
	from        cluster.Time // since when it is looked at
	waits       cluster.Time // since when it waits for GPUs; 0: it does not
	waited      time.Duration
	start, over cluster.Time // its next start and its end; 0: not seen
	held        int64        // thousandths of GPUs
	since       cluster.Time // it holds them
	epoch       cluster.Epoch
	final       cluster.JobState
}

// play lets one run go on.
func (s *side) play(q *Question, c *forecast.Courses, run int) (*course, error) {
	x := &course{now: c.Now(), end: c.Now().Add(q.Horizon), spanEnd: c.Now().Add(q.Span), jobs: map[string]*life{}}
	var next func() (forecast.Arrival, error)
	var broken error
	if q.Arrivals != nil {
		var err error
		if next, err = q.Arrivals(); err != nil {
			return nil, err
		}
	}
	how := forecast.Course{
		Run: run, Horizon: q.Horizon, Work: q.Work, Seen: x.see,
		Change: func(st *cluster.State) error {
			x.begin(st)
			for i := range s.changes {
				if err := s.changes[i].do(st, x.now); err != nil {
					return fmt.Errorf("%s: %w", s.changes[i].Text, err)
				}
			}
			st.EachJob(func(j *cluster.Job) bool { x.see(x.now, j); return true })
			s.nodes, s.gpus = capacity(st)
			return nil
		},
	}
	if next != nil {
		how.Arrivals = func() (forecast.Arrival, bool) {
			a, err := next()
			if err != nil && !errors.Is(err, io.EOF) {
				broken = err
			}
			return a, err == nil && a.At <= q.Horizon
		}
	}
	end, err := c.Run(how)
	if err = errors.Join(err, broken); err != nil {
		return nil, err
	}
	x.reached, x.whole, x.refused = end.At, end.Whole, end.Refused
	x.finish()
	return x, nil
}

// capacity counts the nodes that take jobs, and their sound GPUs.
func capacity(s *cluster.State) (nodes, gpus int) {
	s.EachNode(func(n *cluster.Node) bool {
		if n.State != cluster.NodeReady || n.Drain != nil {
			return true
		}
		nodes++
		for i := range n.GPUs {
			if n.GPUs[i].Healthy {
				gpus++
			}
		}
		return true
	})
	return nodes, gpus
}

// key names a job alike on both sides: one that is yet to come may have another number there.
func key(j *cluster.Job, coming bool) string {
	if coming {
		return j.RequestID
	}
	return fmt.Sprint(j.ID)
}

// begin takes in who is there.
func (x *course) begin(s *cluster.State) {
	s.EachJob(func(j *cluster.Job) bool {
		if !j.State.Final() {
			x.meet(x.now, j, false)
		}
		return true
	})
}

func (x *course) meet(at cluster.Time, j *cluster.Job, coming bool) *life {
	l := &life{id: j.ID, spec: j.Spec, user: j.User, coming: coming, was: j.State, from: at, epoch: j.Epoch}
	if j.State.Holding() {
		l.held, l.since = int64(j.Held())*int64(j.Spec.Share()), at
	} else if j.Unmet == 0 {
		l.waits = at
	}
	k := key(j, coming)
	x.jobs[k] = l
	x.order = append(x.order, k)
	return l
}

// see takes in a job that has changed.
func (x *course) see(at cluster.Time, j *cluster.Job) {
	l := x.jobs[key(j, false)]
	if l == nil || l.coming {
		if l = x.jobs[j.RequestID]; l == nil || !l.coming {
			if j.State.Final() {
				return
			}
			x.meet(at, j, true)
			return
		}
	}
	holds := j.State.Holding()
	if l.held > 0 && (!holds || j.Epoch != l.epoch) {
		x.release(l, at)
		if !j.State.Final() {
			x.stops++
		}
	}
	if holds && l.held == 0 {
		l.held, l.since = int64(j.Held())*int64(j.Spec.Share()), at
		if l.start == 0 {
			l.start = at
		}
	}
	l.epoch = j.Epoch
	pending := j.State == cluster.Pending && j.Unmet == 0
	if l.waits != 0 && !pending {
		l.waited += at.Sub(l.waits)
		l.waits = 0
	} else if l.waits == 0 && pending {
		l.waits = at
	}
	if j.State.Final() && l.over == 0 {
		l.over, l.final = at, j.State
	}
}

// release counts what a job held until a time.
func (x *course) release(l *life, at cluster.Time) {
	x.used += float64(float64(l.held) / 1000 * max(min(at, x.spanEnd).Sub(l.since).Seconds(), 0))
	l.held = 0
}

// finish closes what was still open when the course ended.
func (x *course) finish() {
	for _, k := range x.order {
		l := x.jobs[k]
		if l.held > 0 {
			x.release(l, x.end)
		}
		if l.waits != 0 {
			l.waited += x.end.Sub(l.waits)
			l.waits = 0
		}
	}
}
