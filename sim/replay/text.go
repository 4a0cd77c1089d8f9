package replay

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// TimeText writes seconds for people, with two units at most: "45 s", "1 min 40 s", "3 h 05 min", "4 d 02 h".
func TimeText(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < 0:
		return "-" + TimeText(-s)
	case d == 0:
		return "0 s"
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", s)
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", s)
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%d d %02d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}

// WriteText writes the report for people; sp is as for WriteJSON. It returns the error of writing.
func (r *Report) WriteText(w io.Writer, sp *Speed) error {
	if r.Partial {
		fmt.Fprint(w, "PARTIAL: interrupted; what follows is of the time until then\n\n")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("cluster", "%d nodes, %d GPUs, order %s", r.Nodes, r.GPUs, r.Order)
	row("jobs", "%d: %d finished, %d unfinished, %d refused; %d rows skipped", r.Jobs, r.Done, r.Left, r.Refused, r.Skipped)
	for _, x := range r.Refusals {
		row("", "job %s is refused: %s", x.Job, x.Why)
	}
	if more := r.Refused - len(r.Refusals); more > 0 && len(r.Refusals) > 0 {
		row("", "and %d more; --jobs-csv lists them all", more)
	}
	if r.Inexact > 0 {
		row("quantiles", "of a sketch, within %g %%: more jobs ended than are kept one by one", 100*r.Inexact)
	}
	row("makespan", "%s", TimeText(r.Makespan))
	row("GPU time", "%.1f %% held, %.1f %% useful while jobs arrive; %.0f GPU h lost", 100*r.Allocation, 100*r.Goodput, r.Lost/3600)
	row("preemptions", "%d of %d jobs, at most %d of one", r.Preemptions, r.Preempted, r.MostStops)
	row("predictions", "off by a factor of %.1f in the mean", math.Exp2(r.Misjudged))
	r.conditionRows(row)
	row("log", "%d commands, %d of them refused, %d events", r.Commands, r.Rejected, r.Events)
	row("state hash", "%s", r.StateHash)
	if sp != nil {
		row("speed", "%.2f s: %.0f jobs/s, %.0f events/s, %d MiB", sp.Wall.Seconds(), float64(r.Jobs)/sp.seconds(), float64(r.Events)/sp.seconds(), sp.PeakRSS/mebibyte)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\n\taverage\tp50\tp90\tp99\t")
	times := func(name string, values ...float64) {
		fmt.Fprint(t, name)
		for _, v := range values {
			fmt.Fprintf(t, "\t%s", TimeText(v))
		}
		fmt.Fprintln(t, "\t")
	}
	times("completion time", r.AvgJCT, r.P50JCT, r.P90JCT, r.P99JCT)
	times("wait", r.AvgWait, r.P50Wait, r.P90Wait, r.P99Wait)
	fmt.Fprintf(t, "finish-time fairness\t%.2f\t%.2f\t%.2f\t%.2f\t\n", r.AvgFairness, r.P50Fairness, r.P90Fairness, r.P99Fairness)
	if err := t.Flush(); err != nil || len(r.PerQueue) < 2 {
		return err
	}
	return r.writeQueues(w)
}

// mostQueues bounds the table of queues; the JSON has all.
const mostQueues = 40

func (r *Report) writeQueues(w io.Writer) error {
	queues := make([]string, 0, len(r.PerQueue))
	for q := range r.PerQueue { // any order: sorted below
		queues = append(queues, q)
	}
	slices.Sort(queues)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nqueue\tjobs\tavg completion\tp99\tavg wait\tp99\tpreemptions\t")
	for _, q := range queues[:min(len(queues), mostQueues)] {
		x := r.PerQueue[q]
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%d\t\n", q, x.Jobs, TimeText(x.AvgJCT), TimeText(x.P99JCT), TimeText(x.AvgWait), TimeText(x.P99Wait), x.Preemptions)
	}
	if more := len(queues) - mostQueues; more > 0 {
		defer fmt.Fprintf(w, "%d more are in the JSON.\n", more)
	}
	return t.Flush()
}
