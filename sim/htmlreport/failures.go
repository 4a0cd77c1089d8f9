package htmlreport

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strings"

	"github.com/gangline/gangline/sim/chart"
	"github.com/gangline/gangline/sim/compare"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
)

// said is a count and what it counts.
type said struct {
	n    int
	what string
}

// mostIncidents bounds the list of incidents.
const mostIncidents = 12

// failures says what went wrong.
func failures(e *compare.Entry) template.HTML {
	r, rep := e.Record, e.Report
	all := []said{
		{rep.Refused, "jobs refused (larger than the cluster, or in no queue of the policy)"},
		{rep.Left, "jobs unfinished when the replay ended"},
		{rep.Failed, "jobs given up after failures"},
		{rep.Skipped, "rows skipped (malformed, or without GPUs)"},
		{r.Counts[replay.JobFault], "epochs of jobs ended by a failure"},
		{r.Counts[replay.NodeLost], "node losses"},
	}
	if f := rep.Failures; f != nil {
		all = append(all, said{f.Nodes, "machine failures"}, said{f.GPUs, "GPU failures"}, said{f.Workers, "process failures on sound hardware"}, said{f.LeaderChanges, "changes of the leader"})
	}
	var b strings.Builder
	for _, x := range all {
		if x.n > 0 {
			fmt.Fprintf(&b, "<li>%s: <b>%s</b></li>", html.EscapeString(x.what), chart.Number(float64(x.n)))
		}
	}
	if b.Len() == 0 {
		return `<p class="empty">Nothing: every job finished.</p>`
	}
	out := "<ul>" + b.String() + "</ul>"
	if r.Counts[replay.JobFault]+r.Counts[replay.NodeLost] > 0 {
		out += "<h3>Failures over time</h3>" + overTime(r)
	}
	return template.HTML(out + lostBy(rep)) //nolint:gosec // escaped above
}

// overTime shows how many failures there were in each part of time.
func overTime(r *record.Record) string {
	p := chart.Plot{
		Label: "Failures over time", X: chart.Axis{Max: math.Max(r.End().Seconds(), 1), Unit: chart.Seconds}, Height: 110,
	}
	most := 1.
	sum := make([]float64, len(r.Events(replay.JobFault)))
	for i, kind := range []string{replay.JobFault, replay.NodeLost} {
		values := r.Events(kind)
		for k, v := range values {
			sum[k] += v
			most = math.Max(most, sum[k])
		}
		p.Stack = append(p.Stack, chart.Series{Name: kind, Colour: i, Points: stairs(r, values)})
	}
	p.Y = chart.Axis{Max: chart.Round(most)}
	return p.HTML()
}

// lostBy lists what GPU time was lost to, where that is known.
func lostBy(rep *replay.Report) string {
	l := rep.LostGPU
	if l == nil || rep.Lost <= 0 {
		return ""
	}
	d := chart.Dots{Label: "Lost GPU time by cause", X: chart.Axis{Max: 100, Unit: chart.Percent}, Names: []string{"part of the lost GPU time"}, Colours: []int{1}}
	for _, x := range []struct {
		name string
		v    float64
	}{
		{"repeated work", l.Repeated},
		{"restarts", l.Restart},
		{"start-up", l.StartUp},
		{"checkpoints", l.Checkpoint},
		{"hung ranks", l.Hung},
		{"stopping", l.Stopping},
		{"ending", l.Ending},
	} {
		d.Rows = append(d.Rows, chart.Row{Name: x.name, Note: chart.Number(x.v/3600) + " GPU h", Values: []float64{100 * x.v / rep.Lost}})
	}
	return "<h3>Lost GPU time by cause</h3>" + d.HTML()
}

// incidents lists the first things that failed.
func incidents(e *compare.Entry) template.HTML {
	r := e.Record
	var b strings.Builder
	b.WriteString(`<div class="scroll"><table><tr><th>at</th><th class="text">what</th><th>where</th><th class="text">why</th></tr>`)
	for i := range r.Incidents[:min(len(r.Incidents), mostIncidents)] {
		x := &r.Incidents[i]
		where := x.Node
		if where == "" {
			where = "job " + x.Job
		}
		fmt.Fprintf(&b, `<tr><td>%s</td><td class="text">%s</td><td>%s</td><td class="text">%s</td></tr>`,
			chart.Span(x.At.Seconds()), html.EscapeString(x.Kind), html.EscapeString(where), html.EscapeString(x.Text))
	}
	b.WriteString(`</table></div>`)
	return template.HTML(b.String()) //nolint:gosec // escaped above
}
