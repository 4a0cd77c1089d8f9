package whatif

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/forecast"
)

// Answer is what would happen. Times are seconds from now; names are those of `gangline sim whatif --json`.
type Answer struct {
	At      string   `json:"at"` // RFC 3339
	Partial bool     `json:"partial"`
	Basis   string   `json:"lengths"` // what they go by: learned, limits or none
	Runs    int      `json:"runs"`
	Ahead   float64  `json:"looked_ahead_s"`
	Span    float64  `json:"gpus_counted_s"` // gpu_allocation is over this time
	Running int      `json:"running"`        // jobs that hold GPUs now
	Waiting int      `json:"waiting"`
	Coming  int      `json:"coming"` // in the first run
	Changes []string `json:"changes"`

	AsIs    *Figures `json:"as_is"`
	Changed *Figures `json:"changed"` // nil: nothing is to change

	Sooner   int               `json:"sooner"` // jobs that end sooner on average, or wait less where no end is foreseen, by more than a second and 1 %
	Later    int               `json:"later"`
	Same     int               `json:"same"`
	PerQueue map[string]*Group `json:"per_queue"`
	PerUser  map[string]*Group `json:"per_user"`
	Jobs     []*JobOutlook     `json:"jobs"` // those for which most changes first; of those that are there now
}

// Figures are of one side.
type Figures struct {
	Nodes      int     `json:"nodes"` // that take jobs
	GPUs       int     `json:"gpus"`
	Allocation float64 `json:"gpu_allocation"`
	AvgWait    float64 `json:"avg_wait_s"` // of all jobs, from now or their submission on, on average over the runs
	P50Wait    float64 `json:"p50_wait_s"`
	P90Wait    float64 `json:"p90_wait_s"`
	P99Wait    float64 `json:"p99_wait_s"`
	FinishP50  float64 `json:"finish_p50_s"` // when all that is there now has ended: in half of the runs; -1: later than looked ahead
	FinishP90  float64 `json:"finish_p90_s"`
	Unfinished float64 `json:"unfinished"` // jobs at the horizon, on average
	Unstarted  float64 `json:"unstarted"`  // of these, those that never held GPUs since now
	Stops      float64 `json:"stops"`      // epochs that ended before their job, on average
	Refused    int     `json:"refused"`    // jobs to come that the cluster would not take
}

// Group is a queue's or a user's jobs.
type Group struct {
	Jobs     int     `json:"jobs"`
	AsIsWait float64 `json:"as_is_avg_wait_s"`
	Wait     float64 `json:"avg_wait_s"`
	AsIsEnd  float64 `json:"as_is_avg_end_s"` // from now or their submission, at most until the horizon
	End      float64 `json:"avg_end_s"`
}

// JobOutlook is what is expected of a job.
type JobOutlook struct {
	ID      cluster.JobID `json:"job"`
	Name    string        `json:"name"`
	User    string        `json:"user"`
	Queue   string        `json:"queue"`
	GPUs    int32         `json:"gpus"`
	State   string        `json:"state"`
	AsIs    *Outlook      `json:"as_is"`
	Changed *Outlook      `json:"changed"` // nil: nothing is to change, or the change is that it goes
}

// Outlook is one side's of a job.
type Outlook struct {
	Wait     float64 `json:"avg_wait_s"`
	StartP50 float64 `json:"start_p50_s"` // its next start; 0 if it holds GPUs, -1: later than looked ahead
	EndP50   float64 `json:"end_p50_s"`   // -1 likewise
	EndP90   float64 `json:"end_p90_s"`
	end      float64 // average, at most until the horizon
}

// answer puts together what was seen.
func answer(q *Question, c *forecast.Courses, sides []*side, partial bool) *Answer {
	a := &Answer{
		At: time.Unix(0, int64(c.Now())).UTC().Format(time.RFC3339), Partial: partial, Runs: len(sides[0].courses),
		Basis: map[forecast.Basis]string{forecast.BasisLimits: "limits", forecast.BasisLearned: "learned", forecast.BasisExact: "exact"}[c.Basis()],
		Ahead: q.Horizon.Seconds(), Span: q.Span.Seconds(), PerQueue: map[string]*Group{}, PerUser: map[string]*Group{},
		Changes: []string{}, Jobs: []*JobOutlook{},
	}
	a.Basis = cmp.Or(a.Basis, "none")
	gone := map[cluster.JobID]bool{}
	for _, ch := range q.Changes {
		a.Changes = append(a.Changes, ch.Text)
		gone[ch.gone] = true
	}
	for _, s := range sides {
		s.cut(a.Runs)
	}
	a.AsIs = sides[0].figures(q, gone)
	if len(sides) > 1 {
		a.Changed = sides[1].figures(q, gone)
	}
	first := sides[0].courses[0]
	for _, k := range first.order {
		l := first.jobs[k]
		switch {
		case l.coming:
			a.Coming++
		case l.was.Holding():
			a.Running++
		default:
			a.Waiting++
		}
		j := &JobOutlook{ID: l.id, Name: l.spec.Name, User: l.user, Queue: l.spec.Queue, GPUs: l.spec.GPUs, State: l.was.String(), AsIs: sides[0].outlook(k)}
		if len(sides) > 1 && !gone[l.id] {
			j.Changed = sides[1].outlook(k)
		}
		a.add(j, l.coming)
	}
	for _, groups := range []map[string]*Group{a.PerQueue, a.PerUser} {
		for _, g := range groups { // any order: each is alone
			n := float64(g.Jobs)
			g.AsIsWait, g.Wait, g.AsIsEnd, g.End = g.AsIsWait/n, g.Wait/n, g.AsIsEnd/n, g.End/n
		}
	}
	slices.SortStableFunc(a.Jobs, func(x, y *JobOutlook) int { return cmp.Compare(math.Abs(y.Gained()), math.Abs(x.Gained())) })
	return a
}

// cut leaves out runs that only one side has.
func (s *side) cut(runs int) { s.courses = s.courses[:min(runs, len(s.courses))] }

// Gained is by how many seconds the job is expected to end sooner; below 0:
// later. Where its end makes no difference, since none is foreseen, it is by how
// much less it waits.
func (j *JobOutlook) Gained() float64 {
	switch {
	case j.Changed == nil:
		return 0
	case j.AsIs.end == j.Changed.end: // both are as far as was looked ahead
		return j.AsIs.Wait - j.Changed.Wait
	default:
		return j.AsIs.end - j.Changed.end
	}
}

// notable is how many seconds a job must gain or lose to count.
func (j *JobOutlook) notable() float64 {
	of := j.AsIs.end
	if of == j.Changed.end {
		of = j.AsIs.Wait
	}
	return math.Max(1, of/100)
}

// add takes in a job.
func (a *Answer) add(j *JobOutlook, coming bool) {
	if !coming {
		a.Jobs = append(a.Jobs, j)
	}
	to := j.Changed
	if to == nil {
		if a.Changed != nil {
			return // it goes
		}
		to = j.AsIs
	}
	for groups, name := range map[*map[string]*Group]string{&a.PerQueue: j.Queue, &a.PerUser: j.User} { // any order: each is alone
		g := (*groups)[name]
		if g == nil {
			g = &Group{}
			(*groups)[name] = g
		}
		g.Jobs++
		g.AsIsWait += j.AsIs.Wait
		g.Wait += to.Wait
		g.AsIsEnd += j.AsIs.end
		g.End += to.end
	}
	if a.Changed == nil {
		return
	}
	switch least := j.notable(); {
	case j.Gained() > least:
		a.Sooner++
	case j.Gained() < -least:
		a.Later++
	default:
		a.Same++
	}
}

// outlook is what is expected of a job on a side. One that is to come in this run only, or was refused here, counts as it was seen.
func (s *side) outlook(k string) *Outlook {
	o := &Outlook{}
	var starts, ends []float64
	n := 0.0
	for _, x := range s.courses {
		l := x.jobs[k]
		if l == nil {
			continue
		}
		n++
		start, end := math.Inf(1), math.Inf(1)
		if l.start != 0 || l.was.Holding() {
			start = max(l.start.Sub(l.from).Seconds(), 0)
		}
		if l.over != 0 {
			end = l.over.Sub(l.from).Seconds()
		}
		o.Wait += l.waited.Seconds()
		o.end += math.Min(end, x.end.Sub(l.from).Seconds())
		starts, ends = append(starts, start), append(ends, end)
	}
	if n == 0 {
		return o
	}
	o.Wait /= n
	o.end /= n
	o.StartP50, o.EndP50, o.EndP90 = rank(starts, 5), rank(ends, 5), rank(ends, 9)
	return o
}

// rank is the value that some tenths of all do not exceed, or -1 if that is not known.
func rank(values []float64, tenths int) float64 {
	slices.Sort(values)
	v := values[(len(values)*tenths+9)/10-1]
	if math.IsInf(v, 1) {
		return -1
	}
	return v
}

// figures adds up a side. Jobs that a change takes away are left out of both.
func (s *side) figures(q *Question, gone map[cluster.JobID]bool) *Figures {
	f := &Figures{Nodes: s.nodes, GPUs: s.gpus}
	n := float64(len(s.courses))
	var finish, waits []float64
	for _, x := range s.courses {
		last := 0.0
		for _, k := range x.order {
			l := x.jobs[k]
			if gone[l.id] && !l.coming {
				continue
			}
			waits = append(waits, l.waited.Seconds())
			f.AvgWait += l.waited.Seconds()
			if l.over == 0 {
				f.Unfinished += 1 / n
				if l.start == 0 && !l.was.Holding() {
					f.Unstarted += 1 / n
				}
			}
			switch {
			case l.coming:
			case l.over == 0:
				last = math.Inf(1)
			default:
				last = math.Max(last, l.over.Sub(x.now).Seconds())
			}
		}
		finish = append(finish, last)
		f.Stops += float64(x.stops) / n
		f.Refused = max(f.Refused, x.refused)
		if s.gpus > 0 {
			f.Allocation += x.used / (float64(s.gpus) * q.Span.Seconds()) / n
		}
	}
	f.FinishP50, f.FinishP90 = rank(finish, 5), rank(finish, 9)
	if len(waits) > 0 {
		f.AvgWait /= float64(len(waits))
		slices.Sort(waits)
		at := func(p float64) float64 { return waits[int(p*float64(len(waits)-1))] }
		f.P50Wait, f.P90Wait, f.P99Wait = at(0.5), at(0.9), at(0.99)
	}
	return f
}
