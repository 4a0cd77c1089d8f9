package htmlreport

import (
	_ "embed" // the page's frame and style
	"fmt"
	"html/template"
	"io"

	"github.com/gangline/gangline/sim/chart"
	"github.com/gangline/gangline/sim/compare"
	"github.com/gangline/gangline/sim/record"
	"github.com/gangline/gangline/sim/replay"
)

//go:embed page.html
var frame string

//go:embed style.css
var style string

// Page is what a report is made of.
type Page struct {
	Title   string // what was replayed
	Command string // that makes the page again
	Version string // of the program
	Speed   *replay.Speed
	Result  *compare.Result // one run, or several side by side; nil: Place is set

	Place *replay.PlaceReport // what came of placement alone
}

// tile is a figure that is shown large.
type tile struct{ Name, Value, Note string }

// section is a part of the page.
type section struct {
	Title, Note   string
	Body          template.HTML
	Pair, PairEnd bool // two sections beside each other: the first, the second
}

// Write writes the page. It returns the error of writing.
func Write(w io.Writer, p *Page) error {
	t, err := template.New("page").Parse(frame)
	if err != nil {
		return fmt.Errorf("the frame of the report: %w", err)
	}
	data := struct {
		*Page
		CSS      template.CSS
		Subtitle string
		Partial  bool
		Speed    string
		Tiles    []tile
		Sections []section
	}{Page: p, CSS: template.CSS(style)} //nolint:gosec // our own
	if p.Speed != nil {
		data.Speed = fmt.Sprintf("%s of wall time, %d MiB", chart.Span(p.Speed.Wall.Seconds()), p.Speed.PeakRSS>>20)
	}
	switch {
	case p.Place != nil:
		data.Partial = p.Place.Partial
		data.Subtitle = fmt.Sprintf("%d pods on %d nodes with %d GPUs, score %s", p.Place.Pods, p.Place.Nodes, p.Place.GPUs, p.Place.Score)
		data.Tiles, data.Sections = placeTiles(p.Place), placed(p.Place)
	case len(p.Result.Runs) == 1:
		run := p.Result.Runs[0]
		data.Partial = p.Result.Partial
		data.Subtitle, data.Tiles, data.Sections = subtitle(run.Report), tiles(run.Report), single(run)
	case len(p.Result.Runs) > 1:
		data.Partial = p.Result.Partial
		data.Subtitle = fmt.Sprintf("%d runs of the same jobs, compared with the first", len(p.Result.Runs))
		data.Sections = compared(p.Result)
	default:
		return fmt.Errorf("a report of no run")
	}
	return t.Execute(w, data)
}

func subtitle(r *replay.Report) string {
	return fmt.Sprintf("%s jobs on %s nodes with %s GPUs, order %s", chart.Number(float64(r.Jobs)), chart.Number(float64(r.Nodes)), chart.Number(float64(r.GPUs)), r.Order)
}

func tiles(r *replay.Report) []tile {
	return []tile{
		{"average completion time", chart.Span(r.AvgJCT), fmt.Sprintf("median %s, p99 %s", chart.Span(r.P50JCT), chart.Span(r.P99JCT))},
		{"average wait", chart.Span(r.AvgWait), fmt.Sprintf("median %s, p99 %s", chart.Span(r.P50Wait), chart.Span(r.P99Wait))},
		{"GPUs held", pct(r.Allocation), pct(r.Goodput) + " at useful work, while jobs arrive"},
		{"finished", chart.Number(float64(r.Done)), fmt.Sprintf("of %s jobs; makespan %s", chart.Number(float64(r.Jobs)), chart.Span(r.Makespan))},
		{"preemptions", chart.Number(float64(r.Preemptions)), fmt.Sprintf("of %s jobs; %s GPU h lost", chart.Number(float64(r.Preempted)), chart.Number(r.Lost/3600))},
		{"finish-time fairness, p99", fmt.Sprintf("%.3g", r.P99Fairness), fmt.Sprintf("average %.3g; 1 or less is fair", r.AvgFairness)},
	}
}

func pct(part float64) string { return fmt.Sprintf("%.1f %%", 100*part) }

// colours gives each of some queues a colour: the first ones their own, the others one together. A queue that is shown as
// part of another has that one's.
func colours(queues []*record.Queue, of map[string]string) map[string]int {
	out := map[string]int{}
	next := 0
	for _, q := range queues {
		if out[q.Name] = chart.Other; q.Name != record.Others && next < chart.Other {
			out[q.Name] = next
			next++
		}
	}
	for name, top := range of { // any order: each is alone
		if _, own := out[name]; !own {
			out[name] = out[top]
		}
	}
	return out
}
