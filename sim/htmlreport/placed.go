package htmlreport

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strconv"

	"github.com/gangline/gangline/sim/chart"
	"github.com/gangline/gangline/sim/replay"
)

func placeTiles(r *replay.PlaceReport) []tile {
	when := "of the GPUs, in the end"
	if r.Load > 0 {
		when = fmt.Sprintf("of the GPUs, over time, at a load of %g", r.Load)
	}
	return []tile{
		{"allocated", fmt.Sprintf("%.2f %%", r.Allocated), when},
		{"arrived", chart.Number(float64(r.Pods)), fmt.Sprintf("%s found no room", chart.Number(float64(r.Lost)))},
		{"fragmented", fmt.Sprintf("%.2f %%", r.Fragmented), "of the GPUs free and of no use, in the end"},
	}
}

// placed is the page of placement alone.
func placed(r *replay.PlaceReport) []section {
	out := []section{{Title: "Placed by size", Note: "Which part of the pods that arrived found room, by the GPUs they ask for.", Body: placedBySize(r)}}
	if r.Load > 0 {
		return out
	}
	p := chart.Plot{
		Label: "GPUs allocated by how many had been asked for", Height: 300, Empty: "nothing arrived",
		X: chart.Axis{Max: math.Max(float64(len(r.ByArrived)-1), 1), Unit: chart.Percent}, Y: chart.Axis{Max: 100, Unit: chart.Percent},
	}
	if n := len(r.ByArrived); n > 0 {
		all, ideal := chart.Series{Name: "allocated", Colour: 0}, chart.Series{Name: "asked for, or all", Colour: chart.Other, Dashed: true}
		for i, v := range r.ByArrived {
			all.Points = append(all.Points, chart.Point{X: float64(i), Y: v})
			ideal.Points = append(ideal.Points, chart.Point{X: float64(i), Y: math.Min(float64(i), 100)})
		}
		p.Lines = []chart.Series{ideal, all}
	}
	first := section{
		Title: "GPUs allocated as pods arrive", Note: "Across: GPUs asked for so far, as a part of the cluster. Up: GPUs allocated then.",
		Body: template.HTML(p.HTML()), //nolint:gosec // made by chart, which escapes
	}
	return append([]section{first}, out...)
}

func placedBySize(r *replay.PlaceReport) template.HTML {
	d := chart.Dots{Label: "Placed by size", X: chart.Axis{Max: 100, Unit: chart.Percent}, Names: []string{"placed"}, Empty: "nothing arrived"}
	var sizes []string
	for size, n := range r.Arrived { // any order: sorted below
		if n > 0 {
			sizes = append(sizes, size)
		}
	}
	slices.SortFunc(sizes, func(a, b string) int { return cmp.Compare(sizeOrder(a), sizeOrder(b)) })
	for _, size := range sizes {
		name := size + " GPUs"
		switch size {
		case "0":
			name = "no GPU"
		case "1":
			name = "1 GPU"
		case "share":
			name = "a share of one"
		}
		d.Rows = append(d.Rows, chart.Row{
			Name: name, Note: fmt.Sprintf("%d of %d", r.Placed[size], r.Arrived[size]), Values: []float64{100 * float64(r.Placed[size]) / float64(r.Arrived[size])},
		})
	}
	return template.HTML(d.HTML()) //nolint:gosec // made by chart, which escapes
}

// sizeOrder puts shares between none and one.
func sizeOrder(size string) float64 {
	if n, err := strconv.Atoi(size); err == nil {
		return float64(n)
	}
	return 0.5
}
