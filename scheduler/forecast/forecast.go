package forecast

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
	"github.com/gangline/gangline/scheduler/planner"
)

// Bounds of one answer.
const (
	// DefaultWork is what an answer may cost, in units of about a microsecond:
	// well below a second with what the index takes beside it.
	DefaultWork = 400_000
	maxRuns     = 16
	// maxWaiting is how many jobs wait in a run: the first of all, and as many of
	// the others before the one in question that could take its place.
	maxWaiting = 3000
	maxChanges = 5
)

// Question is what somebody wants to know. Of Job and Spec one is set.
type Question struct {
	Job  cluster.JobID    // a job of the state
	Spec *cluster.JobSpec // a job that is not submitted yet, and its user
	User string
	// Quick asks why only, not when and not what would help.
	Quick bool
	Work  int64 // bound of what the answer may cost, see DefaultWork; 0: that
}

// Answer is all that is known.
type Answer struct {
	Now     cluster.Time
	Job     *cluster.Job        // as it is, or as it would be; nil: the state has no such job, or Refused
	Refused string              // why the job of a Question.Spec would not be taken
	Waits   bool                // the job is Pending; if not, Job.Reason says all, and the rest is empty
	Why     planner.Explanation // what stands against it now
	Place   int                 // among all that wait: 1 is the first
	Of      int
	About   bool          // Place is not counted exactly
	Setback time.Duration // by fair share, as if submitted so much later; negative: earlier
	Fit     *planner.Fit  // where it goes now; nil: it waits
	// Stops are the jobs that would be stopped for it by its own rights, as
	// things are, and StopNodes where it would go then. Nothing is stopped yet.
	Stops     []planner.Evict
	StopNodes []cluster.NodeID
	Start     Estimate
	Changes   []Change // what would start it sooner, the soonest first; at most maxChanges
	Warnings  []string // of a Question.Spec
}

// Estimate is when a job is expected to start.
type Estimate struct {
	Basis Basis
	Runs  int          // in how many runs it was looked for; 0: in none
	P50   cluster.Time // half of the runs had started it by then; 0: they had not
	P90   cluster.Time // nine tenths; 0: they had not
	// Until is how far all runs looked, where P50 or P90 is not known.
	Until cluster.Time
	// Stuck: by then nothing was due any more that could make room for it.
	Stuck bool
	// Never: in the runs, what the job waits for ended otherwise than it asks.
	Never bool
	// Passed of Ahead jobs that come before it had started or gone by then, in
	// the first run; 0 of 0: not counted. Pace is when it would be its turn if they
	// went on so, where P50 is not known; 0: not known either.
	Passed, Ahead int
	Pace          cluster.Time
}

// Change is something about a job that would let it start sooner.
type Change struct {
	What  string // such as "without the rack constraint"
	Spec  *cluster.JobSpec
	Fit   *planner.Fit // where it would go now; nil: it would wait, until Start
	Start Estimate     // if Fit is nil
	// Stops are the jobs that would be stopped for it, priced; it starts when
	// they have gone.
	Stops []planner.Evict
}

// At is when the job would start with the change, half of the time; 0: not known.
func (c *Change) At(now cluster.Time) cluster.Time {
	switch {
	case c.Fit != nil:
		return now
	default:
		return c.Start.P50
	}
}

// Forecaster answers questions about one state that changes in between. It keeps
// an index of the state, so that a question costs what has changed. One
// goroutine uses it at a time.
type Forecaster struct {
	cfg   control.Config
	index *planner.Index
	asked int
}

// New returns a Forecaster for a cluster whose leader steps by cfg. Its first
// question reads the whole state.
func New(cfg control.Config) *Forecaster {
	return &Forecaster{cfg: cfg, index: &planner.Index{}}
}

// anewAfter is after how many questions the index is made anew: what is asked
// for and never submitted leaves shapes in it.
const anewAfter = 5000

// Case is a question that has been looked into, but for what is to be found by
// running forward. It stands by itself: Answer may be called by any goroutine,
// while the Forecaster takes the next question.
type Case struct {
	question Question
	cfg      control.Config
	s        *cluster.State
	now      cluster.Time
	answer   Answer
	order    []cluster.JobID // who waits, in order; nil for a quick question
	tries    []try           // what may help and has to be found out by running forward
	work     int64
}

// try is a job to run forward with: as it is, or changed.
type try struct {
	Change
	place int // among those that wait
}

// Look finds out what stands against a job now. The state must not change while
// it runs; a snapshot will do, and snapshots must come in the order in which
// they were taken, or each costs as much as the first.
func (f *Forecaster) Look(s *cluster.State, now cluster.Time, q Question) *Case {
	now = max(now, s.Now())
	c := &Case{question: q, cfg: f.cfg, s: s, now: now, answer: Answer{Now: now}, work: q.Work}
	if c.work <= 0 {
		c.work = DefaultWork
	}
	a := &c.answer
	if q.Spec != nil {
		a.Job, a.Refused = submitted(s, now, q.Spec, q.User)
	} else {
		a.Job = s.Job(q.Job)
	}
	if a.Job == nil || a.Job.State != cluster.Pending {
		return c
	}
	a.Waits = true
	f.follow(s, now)
	x := f.index
	a.Why = x.Explain(a.Job)
	if fit, ok := x.Fits(a.Job); ok {
		a.Fit = &fit
	}
	a.Place, a.Of, a.About = x.Position(a.Job)
	a.Setback = x.Setback(a.Job)
	if q.Spec != nil {
		a.Warnings = warnings(s, now, a)
	}
	if q.Quick || a.Fit != nil {
		return c
	}
	c.order = x.InOrder()
	if i := slices.Index(c.order, a.Job.ID); i >= 0 && a.Job.Unmet == 0 {
		a.Place, a.About = min(i+1, a.Of), false
	}
	a.Stops, a.StopNodes = x.DryRun(a.Job)
	c.lookForChanges(x)
	return c
}

// follow brings the index to what the leader's would be after its next plan.
func (f *Forecaster) follow(s *cluster.State, now cluster.Time) {
	if f.asked++; f.asked > anewAfter {
		f.index, f.asked = &planner.Index{}, 0
	}
	f.index.Retract()
	f.index.Follow(s)
	f.index.Plan(now, f.cfg.Planner, false)
}

// requestID is of what is submitted to forks only.
const requestID = "forecast"

// submitted returns a job as it would be once submitted, or why it would not be
// taken. Of an array it is the first member.
func submitted(s *cluster.State, now cluster.Time, spec *cluster.JobSpec, user string) (*cluster.Job, string) {
	fork := s.Fork([]cluster.JobID{})
	r := fork.Apply(s.Index()+1, now, &cluster.SubmitJob{RequestID: requestID, User: user, Spec: spec})
	if r.Code != cluster.OK {
		return nil, r.Message
	}
	j := fork.Job(r.Job)
	if j.State.Final() {
		return nil, j.Reason // what it is to start after has ended already, and otherwise than it asks
	}
	return j, ""
}

// Answer finds out when the job starts, and what would start it sooner.
func (c *Case) Answer() Answer {
	a := c.answer
	if a.Fit != nil {
		a.Start = Estimate{P50: c.now, P90: c.now}
	}
	if !a.Waits || c.question.Quick || a.Fit != nil {
		return a
	}
	l := newLengths(c.s, c.now, c.cfg.Planner.Length)
	share := c.work * 3 / 5
	a.Start = c.estimate(l, &try{place: a.Place}, share, maxRuns)
	a.Changes = c.tryChanges(l, &a, c.work-share)
	return a
}

// estimate runs forward, as often as some work allows, with another spec if one
// is given.
func (c *Case) estimate(l *lengths, t *try, work int64, runs int) Estimate {
	e := Estimate{Basis: l.basis(), Until: c.now.Add(horizon)}
	waiting, whole := c.waitingFor(t)
	if e.Basis != BasisLearned || !whole {
		runs = 1 // they would be alike, or do not end with a start
	}
	pace := paceFor(c.s, c.cfg, work/2)
	left := work
	var starts []cluster.Time
	for run := range runs {
		w, target := c.begin(start{l, t.Spec, waiting, run, left, pace})
		if w == nil {
			return e
		}
		started := w.until(target)
		if run > 0 && !started && w.left <= 0 {
			break // it did not get as far as those before it
		}
		left = w.left
		e.Runs++
		if started && whole {
			starts = append(starts, w.now)
		} else { // of those that are left out, one would have taken its place
			starts = append(starts, 0)
			e.Until = min(e.Until, w.now)
			e.Stuck = e.Stuck || w.stuck()
			e.Never = e.Never || w.never
		}
		if run == 0 && t.Spec == nil {
			e.Passed, e.Ahead = c.passed(w.s)
		}
		if left < (work-left)/int64(e.Runs) {
			break // not enough for another one
		}
	}
	e.P50, e.P90 = rank(starts, 5), rank(starts, 9)
	if e.P50 == 0 && e.Passed > 0 && !e.Stuck && e.Until < c.now.Add(horizon) {
		e.Pace = c.now.Add(time.Duration(float64(e.Until.Sub(c.now)) * float64(e.Ahead) / float64(e.Passed)))
	}
	return e
}

// rank is the time by which some tenths of the runs had started the job, or 0.
func rank(starts []cluster.Time, tenths int) cluster.Time {
	late := func(t cluster.Time) uint64 { return uint64(t) - 1 } //nolint:gosec // 0, which is never, becomes the last
	slices.SortFunc(starts, func(a, b cluster.Time) int {
		switch x, y := late(a), late(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		default:
			return 0
		}
	})
	return starts[(len(starts)*tenths+9)/10-1]
}

// passed counts how many of the jobs that come before the one in question no
// longer wait.
func (c *Case) passed(s *cluster.State) (gone, ahead int) {
	for _, id := range c.order[:min(c.answer.Place-1, len(c.order))] {
		ahead++
		if j := s.Job(id); j == nil || j.State != cluster.Pending {
			gone++
		}
	}
	return gone, ahead
}

// waitingFor returns who waits in a run: nil, if all do; and whether nobody is
// left out who could take the place of the job in question.
func (c *Case) waitingFor(t *try) (ids []cluster.JobID, whole bool) {
	if len(c.order) <= maxWaiting {
		return nil, true
	}
	spec := t.Spec
	if spec == nil {
		spec = c.answer.Job.Spec
	}
	ids, whole = slices.Clone(c.order[:maxWaiting]), true
	for i := maxWaiting; i < min(t.place-1, len(c.order)); i++ {
		if j := c.s.Job(c.order[i]); j == nil || !rivals(j.Spec, spec) {
			continue
		}
		if len(ids) >= 2*maxWaiting {
			whole = false
			break
		}
		ids = append(ids, c.order[i])
	}
	if id := c.question.Job; id != 0 && !slices.Contains(ids, id) {
		ids = append(ids, id)
	}
	return c.withFirst(ids), whole
}

// withFirst adds the jobs that must end before the one in question, those that
// they wait for included, as far as they wait themselves and are not too many.
func (c *Case) withFirst(ids []cluster.JobID) []cluster.JobID {
	if c.answer.Job.Unmet == 0 {
		return ids
	}
	there := make(map[cluster.JobID]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	for next := []*cluster.Job{c.answer.Job}; len(next) > 0 && len(ids) < 3*maxWaiting; next = next[1:] {
		c.s.EachBefore(next[0], func(j *cluster.Job) bool {
			if j.State == cluster.Pending && !there[j.ID] {
				there[j.ID] = true
				ids, next = append(ids, j.ID), append(next, j)
			}
			return len(ids) < 3*maxWaiting
		})
	}
	return ids
}

// rivals reports whether a job could take the GPUs for which another one waits.
func rivals(a, b *cluster.JobSpec) bool {
	return a.Least() <= b.Least() && (len(a.GPUTypes) == 0 || len(b.GPUTypes) == 0 ||
		slices.ContainsFunc(a.GPUTypes, func(t string) bool { return slices.Contains(b.GPUTypes, t) }))
}

// start is what a run begins with.
type start struct {
	lengths *lengths
	spec    *cluster.JobSpec // nil: as the job is
	waiting []cluster.JobID
	run     int
	work    int64
	pace    pace
}

// begin forks the state for one run, with the job in question as it is or as a
// spec would have it. Nil: such a job would be refused.
func (c *Case) begin(st start) (*world, cluster.JobID) {
	target, spec := c.question.Job, st.spec
	fork := c.s.Fork(st.waiting)
	user := c.question.User
	if spec == nil {
		spec = c.question.Spec
	}
	if spec != nil {
		if target != 0 { // to change a job is to submit another one: it loses its place
			user = c.answer.Job.User
			fork.Apply(fork.Index()+1, c.now, &cluster.CancelJob{Job: target})
		}
		r := fork.Apply(fork.Index()+1, c.now, &cluster.SubmitJob{RequestID: requestID, User: user, Spec: spec})
		if r.Code != cluster.OK {
			return nil, 0
		}
		target = r.Job
	}
	return newWorld(fork, c.cfg, st.lengths, st.run, c.now, st.work, st.pace), target
}
