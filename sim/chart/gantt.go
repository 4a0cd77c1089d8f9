package chart

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Bar is a time in which something held a part of a row.
type Bar struct {
	From, To float64 // of the time axis
	Lane     int     // of the row, from 0
	Lanes    int     // how many it takes
	Colour   int
	Text     string // shown when the pointer rests on it
}

// Lane is a row of a Gantt chart: a machine and its GPUs.
type Lane struct {
	Name  string
	Lanes int       // GPUs
	Busy  []float64 // 0..1: how much of it was held in equal parts of the axis, drawn behind the bars
	Bars  []Bar
	Away  []float64 // 0..1: how much of the same parts it was away; nil: never
}

// Gantt shows what held which machine when.
type Gantt struct {
	Label  string
	X      Axis
	Rows   []Lane
	Legend []Series // names and colours
	Empty  string
}

// laneHeight is that of one GPU, in px.
const laneHeight = 4

// shades is how many steps of "how busy" are told apart.
const shades = 5

// HTML draws the rows.
func (g *Gantt) HTML() string {
	if len(g.Rows) == 0 {
		return `<p class="empty">` + html.EscapeString(g.Empty) + `</p>`
	}
	var b strings.Builder
	legend(&b, g.Legend)
	fmt.Fprintf(&b, `<div class="gantt" role="img" aria-label="%s">`, html.EscapeString(g.Label))
	for i := range g.Rows {
		r := &g.Rows[i]
		tall := float64(max(r.Lanes, 1))
		fmt.Fprintf(&b, `<div class="name" title="%[1]s">%[1]s</div><svg viewBox="0 0 %[2]g %[3]g" preserveAspectRatio="none" style="height:%[4]dpx" aria-hidden="true">`,
			html.EscapeString(r.Name), wide, tall, max(r.Lanes*laneHeight, 14))
		shade(&b, "busy", r.Busy, tall, 0.4)
		for k := range r.Bars {
			bar := &r.Bars[k]
			rect(&b, class(bar.Colour), &g.X, bar, float64(bar.Lane), float64(bar.Lanes))
		}
		shade(&b, "away", r.Away, tall, 0.9)
		b.WriteString(`</svg>`)
	}
	b.WriteString(`<div></div><div class="scale">`)
	last := -1.
	for i, m := range g.X.marks(7) {
		kind := "x"
		if i%2 == 1 {
			kind = "x odd"
		}
		if m.at-last < 0.08 {
			continue
		}
		last = m.at
		fmt.Fprintf(&b, `<span class="%s" style="left:%s">%s</span>`, kind, percent(m.at), m.text)
	}
	b.WriteString(`</div></div>`)
	return b.String()
}

// shade shades a row by values of 0..1 in equal parts of the axis: one path for each of a few steps.
func shade(b *strings.Builder, kind string, values []float64, tall, most float64) {
	var paths [shades + 1]strings.Builder
	n := len(values)
	level := func(i int) int { return min(max(int(math.Ceil(values[i]*shades-0.05)), 0), shades) }
	for i := 0; i < n; {
		k := i + 1
		for k < n && level(k) == level(i) {
			k++
		}
		if at := level(i); at > 0 {
			fmt.Fprintf(&paths[at], "M%s 0H%sV%gH%[1]sZ", coordinate(wide*float64(i)/float64(n)), coordinate(wide*float64(k)/float64(n)), tall)
		}
		i = k
	}
	for at := range paths {
		if paths[at].Len() > 0 {
			fmt.Fprintf(b, `<path class="%s" fill-opacity="%s" d="%s"/>`, kind, trim(most*float64(at)/shades, 2), paths[at].String())
		}
	}
}

func rect(b *strings.Builder, kind string, x *Axis, bar *Bar, y, h float64) {
	from, to := wide*x.at(bar.From), wide*x.at(bar.To)
	if to-from < 0.6 {
		to = from + 0.6 // it was there
	}
	fmt.Fprintf(b, `<rect class="%s" x="%s" y="%s" width="%s" height="%s"><title>%s</title></rect>`,
		kind, coordinate(from), trim(y+0.08, 2), coordinate(to-from), trim(h-0.16, 2), html.EscapeString(bar.Text))
}
