package whatif

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gangline/gangline/sim/replay"
)

// Rows of the text; the JSON has all.
const (
	mostGroups = 12
	mostJobs   = 12
)

// WriteText writes the answer for people. It returns the error of writing.
func (a *Answer) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "at %s: %d jobs hold GPUs, %d wait", a.At, a.Running, a.Waiting)
	if a.Coming > 0 {
		fmt.Fprintf(w, ", %d are yet to come", a.Coming)
	}
	fmt.Fprintf(w, "; looked ahead %s, %d times\n", replay.TimeText(a.Ahead), a.Runs)
	if a.Partial {
		fmt.Fprintln(w, "PARTIAL: fewer runs or a shorter time than asked for")
	}
	switch a.Basis {
	case "limits":
		fmt.Fprintln(w, "lengths: too few jobs have ended here to tell, so each runs until its time limit, or for ever")
	case "none":
		fmt.Fprintln(w, "lengths: too few jobs have ended here to tell, and no job has a time limit: each runs for ever")
	default:
		fmt.Fprintln(w, "lengths: as jobs like them have needed")
	}
	for _, c := range a.Changes {
		fmt.Fprintf(w, "change: %s\n", c)
	}
	fmt.Fprintln(w)
	if err := a.writeFigures(w); err != nil {
		return err
	}
	if a.Changed != nil {
		fmt.Fprintf(w, "\njobs: %d end sooner, %d later, %d about as before\n", a.Sooner, a.Later, a.Same)
	}
	if err := a.writeGroups(w, "queue", a.PerQueue); err != nil {
		return err
	}
	if err := a.writeGroups(w, "user", a.PerUser); err != nil {
		return err
	}
	return a.writeJobs(w)
}

// writeFigures writes a column for each side.
func (a *Answer) writeFigures(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, of func(*Figures) string) {
		cells := []string{name, of(a.AsIs)}
		if a.Changed != nil {
			cells = append(cells, of(a.Changed))
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	heading := "\tas it is\t"
	if a.Changed != nil {
		heading += "changed\t"
	}
	fmt.Fprintln(t, heading)
	row("nodes", func(f *Figures) string { return fmt.Sprint(f.Nodes) })
	row("GPUs", func(f *Figures) string { return fmt.Sprint(f.GPUs) })
	row("GPUs held, "+replay.TimeText(a.Span), func(f *Figures) string { return fmt.Sprintf("%.1f %%", 100*f.Allocation) })
	row("avg wait", func(f *Figures) string { return replay.TimeText(f.AvgWait) })
	row("p50", func(f *Figures) string { return replay.TimeText(f.P50Wait) })
	row("p90", func(f *Figures) string { return replay.TimeText(f.P90Wait) })
	row("p99", func(f *Figures) string { return replay.TimeText(f.P99Wait) })
	row("what is there now has ended, p50", func(f *Figures) string { return when(f.FinishP50) })
	row("p90", func(f *Figures) string { return when(f.FinishP90) })
	row("unfinished by then", func(f *Figures) string { return fmt.Sprintf("%.1f", f.Unfinished) })
	row("never started", func(f *Figures) string { return fmt.Sprintf("%.1f", f.Unstarted) })
	row("stopped and requeued", func(f *Figures) string { return fmt.Sprintf("%.1f", f.Stops) })
	if a.AsIs.Refused > 0 || a.Changed != nil && a.Changed.Refused > 0 {
		row("coming, but refused", func(f *Figures) string { return fmt.Sprint(f.Refused) })
	}
	return t.Flush()
}

// when is a time from now.
func when(s float64) string {
	if s < 0 {
		return "later"
	}
	return replay.TimeText(s)
}

// writeGroups writes the queues or users for whom most changes.
func (a *Answer) writeGroups(w io.Writer, what string, groups map[string]*Group) error {
	if len(groups) == 0 {
		return nil
	}
	var names []string
	for name := range groups { // any order: sorted below
		names = append(names, name)
	}
	gained := func(name string) float64 {
		return (groups[name].AsIsEnd - groups[name].End) * float64(groups[name].Jobs)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(math.Abs(gained(y)), math.Abs(gained(x))), cmp.Compare(groups[y].Jobs, groups[x].Jobs), cmp.Compare(x, y))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	heading := "\n" + what + "\tjobs\tavg wait\t"
	if a.Changed != nil {
		heading += "changed\tend sooner by\t"
	}
	fmt.Fprintln(t, heading)
	for _, name := range names[:min(len(names), mostGroups)] {
		g := groups[name]
		fmt.Fprintf(t, "%s\t%d\t%s\t", cmp.Or(name, "(no name)"), g.Jobs, replay.TimeText(g.AsIsWait))
		if a.Changed != nil {
			fmt.Fprintf(t, "%s\t%s\t", replay.TimeText(g.Wait), replay.TimeText(g.AsIsEnd-g.End))
		}
		fmt.Fprintln(t)
	}
	if more := len(names) - mostGroups; more > 0 {
		defer fmt.Fprintf(w, "%d more, about which there is less to say, are in the JSON.\n", more)
	}
	return t.Flush()
}

// writeJobs writes the jobs for which most changes.
func (a *Answer) writeJobs(w io.Writer) error {
	if len(a.Jobs) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	heading := "\njob\tuser\tqueue\tGPUs\tstate\tstarts in\tends in\tp90\t"
	if a.Changed != nil {
		heading += "changed: starts in\tends in\tp90\t"
	}
	fmt.Fprintln(t, heading)
	for _, j := range a.Jobs[:min(len(a.Jobs), mostJobs)] {
		fmt.Fprintf(t, "%d %.20s\t%s\t%s\t%d\t%s\t", j.ID, j.Name, j.User, j.Queue, j.GPUs, j.State)
		for _, o := range []*Outlook{j.AsIs, j.Changed} {
			switch {
			case o != nil:
				fmt.Fprintf(t, "%s\t%s\t%s\t", when(o.StartP50), when(o.EndP50), when(o.EndP90))
			case a.Changed != nil:
				fmt.Fprint(t, "-\t-\t-\t")
			}
		}
		fmt.Fprintln(t)
	}
	if more := len(a.Jobs) - mostJobs; more > 0 {
		defer fmt.Fprintf(w, "%d more are in the JSON.\n", more)
	}
	return t.Flush()
}
