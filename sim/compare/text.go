package compare

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gangline/gangline/sim/replay"
)

// mostRows bounds the queues and users of the text; the JSON has all.
const mostRows = 15

// WriteText writes the comparison for people. It returns the error of writing.
func (r *Result) WriteText(w io.Writer) error {
	if len(r.Runs) == 0 {
		return nil
	}
	if r.Partial {
		fmt.Fprintln(w, "PARTIAL: interrupted; what follows is of the time until then")
		fmt.Fprintln(w)
	}
	if err := r.writeFigures(w); err != nil {
		return err
	}
	if err := r.writeChanges(w, "queue", func(a *Against) map[string]Change { return a.PerQueue }); err != nil {
		return err
	}
	if err := r.writeChanges(w, "user", func(a *Against) map[string]Change { return a.PerUser }); err != nil {
		return err
	}
	for _, e := range r.Runs[1:] {
		if e.Against != nil {
			r.writeDifference(w, e)
		}
	}
	return nil
}

// writeFigures writes a column for each run.
func (r *Result) writeFigures(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(i int, e *Entry) string) {
		cells := []string{name}
		for i, e := range r.Runs {
			cells = append(cells, cell(i, e))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	first := r.Runs[0].Report
	value := func(name string, of func(*replay.Report) float64, text func(float64) string) {
		row(name, func(i int, e *Entry) string {
			if i == 0 {
				return text(of(e.Report))
			}
			return text(of(e.Report)) + " " + change(of(first), of(e.Report))
		})
	}
	seconds := func(v float64) string { return replay.TimeText(v) }
	percent := func(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
	number := func(v float64) string { return fmt.Sprintf("%.0f", v) }
	row("", func(_ int, e *Entry) string { return e.Name })
	value("GPUs", func(r *replay.Report) float64 { return float64(r.GPUs) }, number)
	value("finished jobs", func(r *replay.Report) float64 { return float64(r.Done) }, number)
	value("avg completion time", func(r *replay.Report) float64 { return r.AvgJCT }, seconds)
	value("p50", func(r *replay.Report) float64 { return r.P50JCT }, seconds)
	value("p90", func(r *replay.Report) float64 { return r.P90JCT }, seconds)
	value("p99", func(r *replay.Report) float64 { return r.P99JCT }, seconds)
	value("avg wait", func(r *replay.Report) float64 { return r.AvgWait }, seconds)
	value("p99", func(r *replay.Report) float64 { return r.P99Wait }, seconds)
	value("makespan", func(r *replay.Report) float64 { return r.Makespan }, seconds)
	value("GPUs held", func(r *replay.Report) float64 { return r.Allocation }, percent)
	value("at useful work", func(r *replay.Report) float64 { return r.Goodput }, percent)
	value("preemptions", func(r *replay.Report) float64 { return float64(r.Preemptions) }, number)
	value("p99 finish-time fairness", func(r *replay.Report) float64 { return r.P99Fairness }, func(v float64) string { return fmt.Sprintf("%.2f", v) })
	against := func(name string, of func(*Against) int) {
		row(name, func(_ int, e *Entry) string {
			if e.Against == nil {
				return "-"
			}
			return fmt.Sprint(of(e.Against))
		})
	}
	against("jobs faster", func(a *Against) int { return a.Faster })
	against("jobs slower", func(a *Against) int { return a.Slower })
	return t.Flush()
}

// change is how much a value differs from the first run's.
func change(was, is float64) string {
	switch {
	case was == is:
		return "(=)"
	case math.Abs(is-was) < math.Abs(was)/2000:
		return "(0.0%)"
	case was == 0:
		return "(from 0)"
	case is >= 10*was:
		return fmt.Sprintf("(x%.0f)", is/was)
	default:
		return fmt.Sprintf("(%+.1f%%)", 100*(is/was-1))
	}
}

// writeChanges writes the average waits of queues or users.
func (r *Result) writeChanges(w io.Writer, what string, of func(*Against) map[string]Change) error {
	most := map[string]Change{} // of each, the run that says most of it
	for _, e := range r.Runs[1:] {
		if e.Against == nil {
			continue
		}
		for _, c := range Largest(of(e.Against), len(of(e.Against))) {
			old, known := most[c.Name]
			if g, o := c.Gained(), old.Gained(); !known || g*g > o*o {
				most[c.Name] = c.Change
			}
		}
	}
	rows := Largest(most, mostRows)
	if len(rows) == 0 || len(rows) == 1 && rows[0].Name == "" {
		return nil
	}
	slices.SortFunc(rows, func(a, b Named) int { return strings.Compare(a.Name, b.Name) })
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	heading := []string{"\n" + what, "jobs"}
	for _, e := range r.Runs {
		heading = append(heading, "wait, "+e.Name)
	}
	fmt.Fprintln(t, strings.Join(heading, "\t")+"\t")
	for _, c := range rows {
		cells := []string{c.Name, fmt.Sprint(c.Jobs), replay.TimeText(c.FirstW)}
		for _, e := range r.Runs[1:] {
			if e.Against == nil {
				cells = append(cells, "-")
				continue
			}
			x := of(e.Against)[c.Name]
			cells = append(cells, replay.TimeText(x.Wait)+" "+change(x.FirstW, x.Wait))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	if more := len(most) - len(rows); more > 0 {
		defer fmt.Fprintf(w, "%d more, about which there is less to say, are in the JSON.\n", more)
	}
	return t.Flush()
}

// writeDifference tells from where on a run differs.
func (r *Result) writeDifference(w io.Writer, e *Entry) {
	first := r.Runs[0].Name
	if e.Against.Order == nil && e.Against.Nodes == nil {
		if !r.Partial {
			fmt.Fprintf(w, "\n%s took the same decisions as %s.\n", e.Name, first)
		}
		return
	}
	for _, x := range []struct {
		what string
		d    *Difference
	}{{"first chose other nodes", e.Against.Nodes}, {"first decided otherwise", e.Against.Order}} {
		if x.d == nil {
			continue
		}
		fmt.Fprintf(w, "\n%s %s than %s at %s, after %d decisions alike:\n", e.Name, x.what, first, replay.TimeText(x.d.At), x.d.Nth)
		for _, side := range []struct {
			name  string
			s     *Side
			other string
		}{{first, &x.d.First, x.d.This.Job}, {e.Name, &x.d.This, x.d.First.Job}} {
			fmt.Fprintf(w, "  %s %s\n", side.name, side.s.Text(x.d))
			if side.s.Other != "" {
				fmt.Fprintf(w, "    there job %s %s\n", side.other, side.s.Other)
			}
		}
	}
}
