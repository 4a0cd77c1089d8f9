package compare

import (
	"cmp"
	"math"
	"slices"

	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
)

// Run is one way to replay the jobs.
type Run struct {
	Name   string
	Config replay.Config
	// Open reads the jobs and the nodes. It is called for each replay of the run, twice at most.
	Open func() (*replay.Trace, error)
	// Watch is told of the run's first replay, or nil.
	Watch *replay.Watch
}

// Result is what the runs gave. Names are those of `gangline sim compare --json`.
type Result struct {
	Partial bool     `json:"partial"` // it was interrupted: the last of the runs is not whole, and more may be missing
	Runs    []*Entry `json:"runs"`    // as given, as far as they were run
}

// Entry is one run.
type Entry struct {
	Name    string         `json:"name"`
	Report  *replay.Report `json:"report"`
	Against *Against       `json:"against_first,omitempty"` // nil: it is the first

	Record *record.Record `json:"-"`
}

// Against is what differs from the first run. Changes are this run's value less the first one's.
type Against struct {
	Both   int `json:"finished_in_both"` // jobs; the next three are of these
	Faster int `json:"faster"`           // by more than a second and a hundredth of their completion time
	Slower int `json:"slower"`           // likewise
	Same   int `json:"same"`

	PerQueue map[string]Change `json:"per_queue"`
	PerUser  map[string]Change `json:"per_user"`

	// Order is the first decision about another job, or at another time; nil: none. Nodes is the first start on other
	// nodes, if that came before.
	Order *Difference `json:"first_difference"`
	Nodes *Difference `json:"first_other_nodes"`
}

// Change is how the averages of some jobs changed, in seconds.
type Change struct {
	Jobs     int     `json:"jobs"`
	FirstJCT float64 `json:"first_avg_jct_s"`
	JCT      float64 `json:"avg_jct_s"`
	FirstW   float64 `json:"first_avg_wait_s"`
	Wait     float64 `json:"avg_wait_s"`
}

// Runs replays all runs in turn. The first one is what the others are compared with. It returns an error if a run's
// replay does.
func Runs(runs []Run) (*Result, error) {
	out := &Result{}
	var first diary
	for i := range runs {
		tr, err := runs[i].Open()
		if err != nil {
			return nil, err
		}
		rec := record.New(tr.Nodes, true)
		seen := &diary{}
		if i > 0 {
			seen.against = &first
		}
		cfg := runs[i].Config
		cfg.Watch = replay.Watches(rec.Watch(), seen.watch(), runs[i].Watch)
		rep, err := replay.Run(cfg, tr)
		if err != nil {
			return nil, err
		}
		seen.close()
		e := &Entry{Name: runs[i].Name, Report: rep, Record: rec}
		out.Runs = append(out.Runs, e)
		if i == 0 {
			first = *seen
		} else {
			e.Against = against(out.Runs[0], e)
		}
		if rep.Partial {
			out.Partial = true
			return out, nil
		}
		if i == 0 {
			continue
		}
		if e.Against.Order, err = explain(&runs[0], &runs[i], seen.order); err != nil {
			return nil, err
		}
		if seen.place != nil && (seen.order == nil || seen.place.nth < seen.order.nth) {
			if e.Against.Nodes, err = explain(&runs[0], &runs[i], seen.place); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// against compares the figures of two runs.
func against(a, b *Entry) *Against {
	out := &Against{PerQueue: map[string]Change{}, PerUser: map[string]Change{}}
	for row := range min(a.Record.Rows(), b.Record.Rows()) {
		was, is := a.Record.JCT(row), b.Record.JCT(row)
		if math.IsNaN(was) || math.IsNaN(is) {
			continue
		}
		out.Both++
		switch least := math.Max(1, was/100); {
		case is < was-least:
			out.Faster++
		case is > was+least:
			out.Slower++
		default:
			out.Same++
		}
	}
	for name, q := range b.Report.PerQueue { // any order: each is compared alone
		was := a.Report.PerQueue[name]
		out.PerQueue[name] = Change{Jobs: q.Jobs, FirstJCT: was.AvgJCT, JCT: q.AvgJCT, FirstW: was.AvgWait, Wait: q.AvgWait}
	}
	users := map[string]*record.User{}
	for _, u := range a.Record.Users() {
		users[u.Name] = u
	}
	for _, u := range b.Record.Users() {
		c := Change{Jobs: u.Jobs, JCT: perJob(u.JCT, u), Wait: perJob(u.Wait, u)}
		if was := users[u.Name]; was != nil {
			c.FirstJCT, c.FirstW = perJob(was.JCT, was), perJob(was.Wait, was)
		}
		out.PerUser[u.Name] = c
	}
	return out
}

func perJob(sum float64, u *record.User) float64 { return sum / math.Max(float64(u.Finished), 1) }

// Named is a Change with its name.
type Named struct {
	Name string
	Change
}

// Gained is the wait that all jobs together gained (above 0) or lost, in seconds.
func (c *Change) Gained() float64 { return float64(c.Jobs) * (c.FirstW - c.Wait) }

// Largest sorts changes by how much waiting they are about, the largest first, and cuts the list.
func Largest(changes map[string]Change, most int) []Named {
	out := make([]Named, 0, len(changes))
	for name, c := range changes { // any order: sorted below
		out = append(out, Named{name, c})
	}
	slices.SortFunc(out, func(a, b Named) int {
		return cmp.Or(cmp.Compare(math.Abs(b.Gained()), math.Abs(a.Gained())), cmp.Compare(a.Name, b.Name))
	})
	return out[:min(len(out), most)]
}
