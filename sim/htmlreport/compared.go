package htmlreport

import (
	"fmt"
	"html"
	"html/template"
	"strings"

	"github.com/gangline/gangline/sim/chart"
	"github.com/gangline/gangline/sim/compare"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
)

// compared is the page of several runs.
func compared(res *compare.Result) []section {
	runs := res.Runs
	out := []section{
		{Title: "Figures", Note: "The change against the first run stands below each value; green is better.", Body: figures(runs)},
		{Title: "Completion times", Note: "Which part of the finished jobs had ended within a time of their submission.", Body: cdfs(runs), Pair: true},
		{Title: "Average wait by queue", Body: waitDots(runs), PairEnd: true},
		{Title: "GPUs held over time", Body: lines(runs, func(r *record.Record) []float64 { return r.Total(r.Held) }, chart.Count, "GPUs held over time"), Pair: true},
		{Title: "Queue depth", Note: "Jobs that wait.", Body: lines(runs, func(r *record.Record) []float64 { return r.Total(r.Pending) }, chart.Count, "Jobs that wait over time"), PairEnd: true},
		{
			Title: "Fragmentation", Note: "GPUs that were free and of no use to the jobs seen so far, on average over what they asked for (FGD's measure).",
			Body: lines(runs, func(r *record.Record) []float64 { return scaled(r.Fragmented(), 100) }, chart.Percent, "Fragmentation over time"),
		},
	}
	for _, e := range runs[1:] {
		out = append(out, section{Title: "Where " + e.Name + " first differs", Body: differences(runs[0], e)})
	}
	out = append(out,
		section{Title: "Queues", Note: "Average wait; those about which there is most to say first.", Body: changes(runs, func(a *compare.Against) map[string]compare.Change { return a.PerQueue }, "queue")},
		section{Title: "Users", Note: "Average wait; those about which there is most to say first.", Body: changes(runs, func(a *compare.Against) map[string]compare.Change { return a.PerUser }, "user")},
	)
	return out
}

// figure is a row of the table of figures.
type figure struct {
	name   string
	value  func(*replay.Report) float64
	text   func(float64) string
	better int // 1: more is better; -1: less; 0: neither
}

func figureRows() []figure {
	count := func(v float64) string { return chart.Number(v) }
	part := func(v float64) string { return pct(v) }
	ratio := func(v float64) string { return fmt.Sprintf("%.3g", v) }
	return []figure{
		{"average completion time", func(r *replay.Report) float64 { return r.AvgJCT }, chart.Span, -1},
		{"median", func(r *replay.Report) float64 { return r.P50JCT }, chart.Span, -1},
		{"90th percentile", func(r *replay.Report) float64 { return r.P90JCT }, chart.Span, -1},
		{"99th percentile", func(r *replay.Report) float64 { return r.P99JCT }, chart.Span, -1},
		{"average wait", func(r *replay.Report) float64 { return r.AvgWait }, chart.Span, -1},
		{"99th percentile", func(r *replay.Report) float64 { return r.P99Wait }, chart.Span, -1},
		{"makespan", func(r *replay.Report) float64 { return r.Makespan }, chart.Span, -1},
		{"GPUs held", func(r *replay.Report) float64 { return r.Allocation }, part, 0},
		{"GPUs at useful work", func(r *replay.Report) float64 { return r.Goodput }, part, 1},
		{"preemptions", func(r *replay.Report) float64 { return float64(r.Preemptions) }, count, -1},
		{"finish-time fairness, p99", func(r *replay.Report) float64 { return r.P99Fairness }, ratio, -1},
		{"finished jobs", func(r *replay.Report) float64 { return float64(r.Done) }, count, 1},
		{"unfinished or refused", func(r *replay.Report) float64 { return float64(r.Left + r.Refused) }, count, -1},
	}
}

// figures is the table of all runs' figures.
func figures(runs []*compare.Entry) template.HTML {
	var b strings.Builder
	b.WriteString(`<div class="scroll"><table><tr><th></th>`)
	for _, e := range runs {
		fmt.Fprintf(&b, `<th>%s</th>`, html.EscapeString(e.Name))
	}
	b.WriteString(`</tr>`)
	for _, f := range figureRows() {
		fmt.Fprintf(&b, `<tr><td>%s</td>`, f.name)
		was := f.value(runs[0].Report)
		for i, e := range runs {
			v := f.value(e.Report)
			fmt.Fprintf(&b, `<td>%s%s</td>`, f.text(v), changeText(i, was, v, f.better))
		}
		b.WriteString(`</tr>`)
	}
	for _, row := range []struct {
		name  string
		value func(*compare.Against) int
	}{
		{"jobs faster", func(a *compare.Against) int { return a.Faster }},
		{"jobs slower", func(a *compare.Against) int { return a.Slower }},
	} {
		fmt.Fprintf(&b, `<tr><td>%s</td>`, row.name)
		for _, e := range runs {
			if e.Against == nil {
				b.WriteString(`<td class="soft">first</td>`)
			} else {
				fmt.Fprintf(&b, `<td>%s</td>`, chart.Number(float64(row.value(e.Against))))
			}
		}
		b.WriteString(`</tr>`)
	}
	b.WriteString(`</table></div>`)
	return template.HTML(b.String()) //nolint:gosec // escaped above
}

// changeText is how a value differs from the first run's.
func changeText(run int, was, v float64, better int) string {
	if run == 0 {
		return "<small>&nbsp;</small>"
	}
	if was == v {
		return "<small>same</small>"
	}
	kind := ""
	switch d := (v - was) * float64(better); {
	case d > 0:
		kind = ` class="good"`
	case d < 0:
		kind = ` class="bad"`
	}
	if abs(v-was) < abs(was)/2000 {
		return "<small>0.0 %</small>"
	}
	if was == 0 {
		return fmt.Sprintf("<small%s>from 0</small>", kind)
	}
	if v >= 10*was {
		return fmt.Sprintf("<small%s>x%.0f</small>", kind, v/was)
	}
	return fmt.Sprintf("<small%s>%+.1f %%</small>", kind, 100*(v/was-1))
}

// differences shows the first decisions that were others.
func differences(first, e *compare.Entry) template.HTML {
	if e.Against == nil {
		return ""
	}
	if e.Against.Order == nil && e.Against.Nodes == nil {
		return `<p class="empty">Nowhere: it took the same decisions.</p>`
	}
	var b strings.Builder
	show := func(title string, d *compare.Difference) {
		if d == nil {
			return
		}
		fmt.Fprintf(&b, `<h3>%s at %s, after %s decisions alike</h3><div class="sides">`, title, chart.Span(d.At), chart.Number(float64(d.Nth)))
		for i, s := range []*compare.Side{&d.First, &d.This} {
			name := []string{first.Name, e.Name}[i]
			fmt.Fprintf(&b, `<div><b>%s</b><p>%s</p>`, html.EscapeString(name), html.EscapeString(s.Text(d)))
			if s.Other != "" {
				other := d.This.Job
				if i == 1 {
					other = d.First.Job
				}
				fmt.Fprintf(&b, `<p class="soft">Here job %s %s</p>`, html.EscapeString(other), html.EscapeString(s.Other))
			}
			b.WriteString(`</div>`)
		}
		b.WriteString(`</div>`)
	}
	show("Other nodes", e.Against.Nodes)
	show("Another decision", e.Against.Order)
	return template.HTML(b.String()) //nolint:gosec // escaped above
}

// changes lists what changed for queues or users.
func changes(runs []*compare.Entry, of func(*compare.Against) map[string]compare.Change, what string) template.HTML {
	last := runs[len(runs)-1]
	if last.Against == nil {
		return ""
	}
	most := map[string]compare.Change{} // of each, the run that says most of it
	for _, e := range runs[1:] {
		for _, c := range compare.Largest(of(e.Against), 1<<30) {
			if old, ok := most[c.Name]; !ok || abs(c.Gained()) > abs(old.Gained()) {
				most[c.Name] = c.Change
			}
		}
	}
	rows := compare.Largest(most, mostRows)
	if len(rows) == 0 || len(rows) == 1 && rows[0].Name == "" {
		return template.HTML(`<p class="empty">The trace names no ` + what + `.</p>`) //nolint:gosec // a word of ours
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<div class="scroll"><table><tr><th>%s</th><th>jobs</th>`, what)
	for _, e := range runs {
		fmt.Fprintf(&b, `<th>%s</th>`, html.EscapeString(e.Name))
	}
	b.WriteString(`</tr>`)
	for _, row := range rows {
		fmt.Fprintf(&b, `<tr><td>%s</td><td>%d</td><td>%s%s</td>`, html.EscapeString(row.Name), row.Jobs, chart.Span(row.FirstW), changeText(0, 0, 0, 0))
		for _, e := range runs[1:] {
			c := of(e.Against)[row.Name]
			fmt.Fprintf(&b, `<td>%s%s</td>`, chart.Span(c.Wait), changeText(1, c.FirstW, c.Wait, -1))
		}
		b.WriteString(`</tr>`)
	}
	b.WriteString(`</table></div>`)
	if more := len(most) - len(rows); more > 0 {
		fmt.Fprintf(&b, `<p class="note">%d more are in the JSON.</p>`, more)
	}
	return template.HTML(b.String()) //nolint:gosec // escaped above
}

func abs(v float64) float64 {
	if v < 0 {
		return -v
	}
	return v
}
