package htmlreport

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strings"

	"github.com/gangline/gangline/sim/chart"
	"github.com/gangline/gangline/sim/compare"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
)

// height is that of most plots, px.
const height = 220

// single is the page of one run.
func single(e *compare.Entry) []section {
	r := e.Record
	queues, of := r.Grouped(chart.Other)
	colour := colours(queues, of)
	out := []section{
		{
			Title: "GPUs over time", Note: "GPUs held by each queue; the dashed line is what there was.",
			Body: stacked(r, queues, colour, r.Held, e.Report, "GPUs held over time, by queue"),
		},
		{
			Title: "Queue depth", Note: "Jobs that wait, by queue.",
			Body: stacked(r, queues, colour, r.Pending, nil, "Jobs that wait over time, by queue"), Pair: true,
		},
		{
			Title: "Wait at the start", Note: "How long jobs had waited that started at this time, on average.",
			Body: waits(r, queues, colour), PairEnd: true,
		},
		{
			Title: "Wait by queue", Note: "Of completion time, what is not service: average and 99th percentile of the jobs that finished, of the largest queues.",
			Body: waitDots([]*compare.Entry{e}), Pair: true,
		},
		{Title: "Completion times", Note: "Which part of the finished jobs had ended within a time of their submission.", Body: cdfs([]*compare.Entry{e}), PairEnd: true},
		{
			Title: "Fragmentation", Note: "GPUs that were free and of no use to the jobs seen so far, on average over what they asked for (FGD's measure).",
			Body: lines([]*compare.Entry{e}, func(r *record.Record) []float64 { return scaled(r.Fragmented(), 100) }, chart.Percent, "Fragmentation over time"), Pair: true,
		},
		{Title: "What failed", Body: failures(e), PairEnd: true},
		{
			Title: "Nodes",
			Note:  "What held the GPUs of some nodes: a bar for each of the longest holds, shades for how busy the node was with all others. Red: the node was lost. Rest the pointer on a bar to see the job.",
			Body:  gantt(r, colour, queues),
		},
		{Title: "Queues", Body: queueTable(e.Report)},
	}
	if n := len(r.Incidents); n > 0 {
		out = append(out, section{Title: "First failures", Body: incidents(e)})
	}
	return out
}

// timeAxis is virtual time of some runs.
func timeAxis(runs ...*compare.Entry) chart.Axis {
	end := 1.
	for _, e := range runs {
		end = math.Max(end, e.Record.End().Seconds())
	}
	return chart.Axis{Max: end, Unit: chart.Seconds}
}

// stairs makes points of the averages of equal parts of time, the last of which only ends the one before.
func stairs(r *record.Record, values []float64) []chart.Point {
	width := r.Width().Seconds()
	out := make([]chart.Point, 0, len(values)+1)
	for i, v := range values {
		out = append(out, chart.Point{X: float64(i) * width, Y: v})
	}
	if len(out) > 0 {
		out = append(out, chart.Point{X: r.End().Seconds(), Y: values[len(values)-1]})
	}
	return out
}

// stacked shows a view of all queues on top of each other. With a report it also shows how many GPUs there were.
func stacked(r *record.Record, queues []*record.Queue, colour map[string]int, view func(*record.Queue) []float64, rep *replay.Report, label string) template.HTML {
	p := chart.Plot{Label: label, X: chart.Axis{Max: math.Max(r.End().Seconds(), 1), Unit: chart.Seconds}, Height: height, Empty: "no job came"}
	most, rest := 0., []float64(nil)
	for _, q := range queues {
		v := view(q)
		if c := colour[q.Name]; c != chart.Other {
			p.Stack = append(p.Stack, chart.Series{Name: q.Name, Colour: c, Points: stairs(r, v)})
			continue
		}
		if rest == nil {
			rest = make([]float64, len(v))
		}
		for i := range v {
			rest[i] += v[i]
		}
	}
	if rest != nil {
		p.Stack = append(p.Stack, chart.Series{Name: "other queues", Colour: chart.Other, Points: stairs(r, rest)})
	}
	for _, v := range r.Total(view) {
		most = math.Max(most, v)
	}
	if rep != nil && len(p.Stack) > 0 {
		gpus := r.GPUs()
		for _, v := range gpus {
			most = math.Max(most, v)
		}
		p.Lines = append(p.Lines, chart.Series{Name: "GPUs that were there", Colour: chart.Other, Points: stairs(r, gpus), Dashed: true, Step: true})
	}
	p.Y = chart.Axis{Max: chart.Round(most)}
	if rep != nil {
		p.Y.Max = math.Max(most*1.02, 1)
	}
	return template.HTML(p.HTML()) //nolint:gosec // made by chart, which escapes
}

// mostLines bounds how many lines one plot shows.
const mostLines = 5

// waits shows how long jobs of the larger queues had waited when they started.
func waits(r *record.Record, queues []*record.Queue, colour map[string]int) template.HTML {
	p := chart.Plot{
		Label: "Average wait of starting jobs over time, by queue", X: chart.Axis{Max: math.Max(r.End().Seconds(), 1), Unit: chart.Seconds},
		Height: height, Empty: "no job started",
	}
	most := 1.
	for _, q := range queues {
		if colour[q.Name] == chart.Other || len(p.Lines) == mostLines {
			continue
		}
		s := chart.Series{Name: q.Name, Colour: colour[q.Name]}
		for _, v := range coarse(r, q) {
			if !math.IsNaN(v.Y) {
				most = math.Max(most, v.Y)
			}
			s.Points = append(s.Points, v)
		}
		p.Lines = append(p.Lines, s)
	}
	p.Y = chart.Axis{Min: 1, Max: math.Max(most*1.2, 10), Unit: chart.Seconds, Log: true}
	return template.HTML(p.HTML()) //nolint:gosec // made by chart, which escapes
}

// coarse is the average wait at the start, in parts of time wide enough for a line that can be read.
func coarse(r *record.Record, q *record.Queue) []chart.Point {
	const together = 8
	var out []chart.Point
	waits, starts := r.StartWaits(q)
	for i := 0; i < len(waits); i += together {
		sum, n := 0., 0.
		for k := i; k < min(i+together, len(waits)); k++ {
			sum, n = sum+waits[k], n+starts[k]
		}
		if n > 0 {
			out = append(out, chart.Point{X: (float64(i) + together/2.) * r.Width().Seconds(), Y: sum / n})
		}
	}
	return out
}

// waitDots shows average and 99th percentile of the waits of each queue: of one run, or the averages of several.
func waitDots(runs []*compare.Entry) template.HTML {
	p := chart.Dots{Label: "Wait by queue", Empty: "no job finished"}
	if len(runs) == 1 {
		p.Names = []string{"average", "99th percentile"}
		p.Colours = []int{0, 1}
	} else {
		for _, e := range runs {
			p.Names = append(p.Names, e.Name)
		}
	}
	most := 10.
	for _, name := range queueNames(runs, mostDots) {
		row := chart.Row{Name: name}
		for _, e := range runs {
			q, ok := e.Report.PerQueue[name]
			avg, p99 := q.AvgWait, q.P99Wait
			if !ok || q.Done == 0 {
				avg, p99 = math.NaN(), math.NaN()
			}
			row.Values = append(row.Values, avg)
			if len(runs) == 1 {
				row.Values = append(row.Values, p99)
				row.Note = chart.Number(float64(q.Jobs))
			}
		}
		for _, v := range row.Values {
			if !math.IsNaN(v) {
				most = math.Max(most, v)
			}
		}
		p.Rows = append(p.Rows, row)
	}
	p.X = chart.Axis{Min: 1, Max: most * 1.1, Unit: chart.Seconds, Log: true}
	return template.HTML(p.HTML()) //nolint:gosec // made by chart, which escapes
}

// Rows of a table, and of a dot plot, at most.
const (
	mostRows = 40
	mostDots = 14
)

// queueNames are the queues of some runs: those with the most jobs, by name.
func queueNames(runs []*compare.Entry, most int) []string {
	jobs := map[string]int{}
	var names []string
	for _, e := range runs {
		for name, q := range e.Report.PerQueue { // any order: sorted below
			if jobs[name] == 0 {
				names = append(names, name)
			}
			jobs[name] += max(q.Jobs, 1)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := jobs[b] - jobs[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	names = names[:min(len(names), most)]
	slices.Sort(names)
	return names
}

// cdfs shows the completion times of some runs.
func cdfs(runs []*compare.Entry) template.HTML {
	p := chart.Plot{
		Label: "Distribution of completion times", Height: height, Empty: "no job finished",
		X: chart.Axis{Min: 1, Max: 10, Unit: chart.Seconds, Log: true}, Y: chart.Axis{Max: 100, Unit: chart.Percent},
	}
	least := math.Inf(1)
	for i, e := range runs {
		times, parts := e.Record.CDF()
		s := chart.Series{Name: e.Name, Colour: i}
		for k := range times {
			s.Points = append(s.Points, chart.Point{X: times[k], Y: 100 * parts[k]})
			p.X.Max = math.Max(p.X.Max, times[k])
			least = math.Min(least, times[k])
		}
		if len(s.Points) > 0 {
			p.Lines = append(p.Lines, s)
		}
	}
	if !math.IsInf(least, 1) {
		p.X.Min = math.Max(1, math.Min(least, p.X.Max/10))
	}
	return template.HTML(p.HTML()) //nolint:gosec // made by chart, which escapes
}

// lines shows one value over time for each of some runs.
func lines(runs []*compare.Entry, view func(*record.Record) []float64, unit chart.Unit, label string) template.HTML {
	p := chart.Plot{Label: label, X: timeAxis(runs...), Height: height, Empty: "nothing happened"}
	most := 0.
	for i, e := range runs {
		s := chart.Series{Name: e.Name, Colour: i, Points: stairs(e.Record, view(e.Record)), Step: true}
		for _, pt := range s.Points {
			if !math.IsNaN(pt.Y) {
				most = math.Max(most, pt.Y)
			}
		}
		if len(s.Points) > 0 {
			p.Lines = append(p.Lines, s)
		}
	}
	p.Y = chart.Axis{Max: chart.Round(most), Unit: unit}
	if unit == chart.Percent {
		p.Y.Max = math.Min(p.Y.Max, 100)
	}
	return template.HTML(p.HTML()) //nolint:gosec // made by chart, which escapes
}

func scaled(values []float64, by float64) []float64 {
	for i := range values {
		values[i] *= by
	}
	return values
}

// gantt shows some nodes.
func gantt(r *record.Record, colour map[string]int, queues []*record.Queue) template.HTML {
	g := chart.Gantt{Label: "What held which node when", X: chart.Axis{Max: math.Max(r.End().Seconds(), 1), Unit: chart.Seconds}, Empty: "there are no nodes"}
	for _, q := range queues {
		if colour[q.Name] != chart.Other {
			g.Legend = append(g.Legend, chart.Series{Name: q.Name, Colour: colour[q.Name]})
		}
	}
	if len(queues) > len(g.Legend) {
		g.Legend = append(g.Legend, chart.Series{Name: "other queues", Colour: chart.Other})
	}
	least := g.X.Max / 600 // what would be thinner than a hair is in the shades
	for _, n := range r.Nodes() {
		row := chart.Lane{Name: n.Name, Lanes: n.GPUs, Busy: r.Busy(n)}
		for i := range n.Bars {
			b := &n.Bars[i]
			if (b.To - b.From).Seconds() < least {
				continue
			}
			c, known := colour[b.Queue]
			if !known {
				c = chart.Other
			}
			text := fmt.Sprintf("job %s, queue %s, %d GPUs here of %d: %s to %s, %s", b.Job, b.Queue, len(b.GPUs), b.All,
				chart.Span(b.From.Seconds()), chart.Span(b.To.Seconds()), b.Why)
			for _, run := range runsOf(b.GPUs) {
				row.Bars = append(row.Bars, chart.Bar{From: b.From.Seconds(), To: b.To.Seconds(), Lane: run[0], Lanes: run[1], Colour: c, Text: text})
			}
		}
		if r.Counts[replay.NodeLost] > 0 {
			row.Away = r.Away(n)
		}
		g.Rows = append(g.Rows, row)
	}
	return template.HTML(g.HTML()) //nolint:gosec // made by chart, which escapes
}

// runsOf makes (first, count) of numbers that follow each other.
func runsOf(numbers []int) [][2]int {
	sorted := slices.Sorted(slices.Values(numbers))
	var out [][2]int
	for _, n := range sorted {
		if last := len(out) - 1; last >= 0 && out[last][0]+out[last][1] == n {
			out[last][1]++
			continue
		}
		out = append(out, [2]int{n, 1})
	}
	return out
}

// queueTable lists the figures of the queues.
func queueTable(rep *replay.Report) template.HTML {
	var b strings.Builder
	b.WriteString(`<div class="scroll"><table><tr><th>queue</th><th>jobs</th><th>finished</th><th>avg completion</th><th>p99</th><th>avg wait</th><th>p99</th><th>preemptions</th></tr>`)
	names := queueNames([]*compare.Entry{{Report: rep}}, mostRows)
	for _, name := range names {
		q := rep.PerQueue[name]
		fmt.Fprintf(&b, `<tr><td>%s</td><td>%d</td><td>%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%d</td></tr>`,
			html.EscapeString(name), q.Jobs, q.Done, chart.Span(q.AvgJCT), chart.Span(q.P99JCT), chart.Span(q.AvgWait), chart.Span(q.P99Wait), q.Preemptions)
	}
	b.WriteString(`</table></div>`)
	if more := len(rep.PerQueue) - len(names); more > 0 {
		fmt.Fprintf(&b, `<p class="note">These are the largest; %d more are in the JSON.</p>`, more)
	}
	return template.HTML(b.String()) //nolint:gosec // escaped above
}
