package chart

import (
	"fmt"
	"html"
	"math"
	"slices"
	"strings"
)

// Colours is how many series have a colour of their own; more of them repeat. Colour Other is a grey.
const (
	Colours = 9
	Other   = Colours - 1
)

// The drawing's own units. It is stretched to the room that there is.
const (
	wide = 1000.
	high = 400.
)

// Point is a value of a series. A NaN breaks a line.
type Point struct{ X, Y float64 }

// Series is one line, or one layer of a stack.
type Series struct {
	Name   string
	Colour int
	Points []Point // by X; in a stack all series have the same X, and a value counts until the next one's
	Dashed bool
	Step   bool // a value counts until the next one's X
}

// Plot is a chart with two axes.
type Plot struct {
	Label  string // what it shows, for those who cannot see it
	X, Y   Axis
	Height int      // px
	Stack  []Series // filled, on top of each other
	Lines  []Series // over them
	Marks  []Event  // upright lines over all
	Empty  string   // what to say if there is nothing to show
}

// Event is a moment that an upright line shows.
type Event struct {
	X    float64
	Text string // shown when the pointer rests on it
}

// HTML draws the plot and its legend.
func (p *Plot) HTML() string {
	if len(p.Stack)+len(p.Lines) == 0 {
		return `<p class="empty">` + html.EscapeString(p.Empty) + `</p>`
	}
	var b strings.Builder
	legend(&b, slices.Concat(p.Stack, p.Lines))
	fmt.Fprintf(&b, `<div class="plot" style="height:%dpx">`, p.Height)
	grid(&b, &p.X, &p.Y)
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" preserveAspectRatio="none" role="img" aria-label="%s">`, wide, high, html.EscapeString(p.Label))
	p.stack(&b)
	for i := range p.Lines {
		p.line(&b, &p.Lines[i])
	}
	for _, m := range p.Marks {
		x := coordinate(wide * p.X.at(m.X))
		fmt.Fprintf(&b, `<path class="event" d="M%s 0V%g"><title>%s</title></path>`, x, high, html.EscapeString(m.Text))
	}
	b.WriteString(`</svg></div>`)
	return b.String()
}

// legend names the colours, if there is more than one.
func legend(b *strings.Builder, all []Series) {
	if len(all) < 2 {
		return
	}
	b.WriteString(`<ul class="legend">`)
	for i := range all {
		kind := ""
		if all[i].Dashed {
			kind = " dashed"
		}
		fmt.Fprintf(b, `<li><i class="%s%s"></i>%s</li>`, class(all[i].Colour), kind, html.EscapeString(all[i].Name))
	}
	b.WriteString(`</ul>`)
}

// grid draws the marks of both axes: lines and words.
func grid(b *strings.Builder, x, y *Axis) {
	for _, m := range y.marks(5) {
		fmt.Fprintf(b, `<span class="y" style="bottom:%s"><b>%s</b></span>`, percent(m.at), m.text)
	}
	last := -1.
	for i, m := range x.marks(7) {
		kind := "x"
		if i%2 == 1 {
			kind = "x odd" // left out where it is narrow
		}
		if m.at-last < 0.08 {
			continue
		}
		last = m.at
		fmt.Fprintf(b, `<span class="%s" style="left:%s">%s</span>`, kind, percent(m.at), m.text)
	}
}

// stack fills the layers, from below.
func (p *Plot) stack(b *strings.Builder) {
	if len(p.Stack) == 0 {
		return
	}
	n := len(p.Stack[0].Points)
	base := make([]float64, n)
	for i := range p.Stack {
		s := &p.Stack[i]
		var up, down strings.Builder
		top := make([]float64, n)
		for k := range n {
			top[k] = base[k] + s.Points[k].Y
		}
		outline(&up, p, s.Points, top, false)
		outline(&down, p, s.Points, base, true)
		fmt.Fprintf(b, `<path class="area %s" d="M%sL%sZ"><title>%s</title></path>`, class(s.Colour), up.String(), down.String(), html.EscapeString(s.Name))
		base = top
	}
}

// outline is a stair through some heights, to and fro. The last point only ends it.
func outline(b *strings.Builder, p *Plot, points []Point, y []float64, back bool) {
	n := len(points)
	corner := func(k, level int) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(coordinate(wide * p.X.at(points[k].X)))
		b.WriteByte(' ')
		b.WriteString(coordinate(high * (1 - p.Y.at(y[level]))))
	}
	for i := range n - 1 {
		k := i
		if back {
			k = n - 2 - i
			corner(k+1, k)
			corner(k, k)
			continue
		}
		corner(k, k)
		corner(k+1, k)
	}
}

// line draws a series as a line, broken at NaNs. Points that would be drawn within a unit of the last are left out, but
// for the highest and the lowest there.
func (p *Plot) line(b *strings.Builder, s *Series) {
	var d strings.Builder
	pen, lastX, lastY := false, 0., 0.
	for i, pt := range s.Points {
		if math.IsNaN(pt.Y) {
			pen = false
			continue
		}
		x, y := wide*p.X.at(pt.X), high*(1-p.Y.at(pt.Y))
		switch {
		case !pen:
			fmt.Fprintf(&d, "M%s %s", coordinate(x), coordinate(y))
		case i+1 < len(s.Points) && x-lastX < 0.5 && math.Abs(y-lastY) < 0.5:
			continue
		case s.Step:
			fmt.Fprintf(&d, "H%sV%s", coordinate(x), coordinate(y))
		default:
			fmt.Fprintf(&d, "L%s %s", coordinate(x), coordinate(y))
		}
		pen, lastX, lastY = true, x, y
	}
	kind := class(s.Colour)
	if s.Dashed {
		kind += " dashed"
	}
	fmt.Fprintf(b, `<path class="line %s" d="%s"><title>%s</title></path>`, kind, d.String(), html.EscapeString(s.Name))
}

// Row is a line of a dot plot: a name and some values on one axis.
type Row struct {
	Name   string
	Note   string    // beside the name
	Values []float64 // as Dots.Names; NaN: none
}

// Dots shows a few values for each of some rows, on one axis.
type Dots struct {
	Label   string
	X       Axis
	Names   []string // of the values
	Colours []int    // of the values; nil: 0, 1, 2...
	Rows    []Row
	Empty   string
}

// HTML draws the rows.
func (p *Dots) HTML() string {
	if len(p.Rows) == 0 {
		return `<p class="empty">` + html.EscapeString(p.Empty) + `</p>`
	}
	var b strings.Builder
	names := make([]Series, len(p.Names))
	for i, n := range p.Names {
		names[i] = Series{Name: n, Colour: p.colour(i)}
	}
	legend(&b, names)
	fmt.Fprintf(&b, `<div class="dots" role="img" aria-label="%s">`, html.EscapeString(p.Label))
	for i := range p.Rows {
		r := &p.Rows[i]
		fmt.Fprintf(&b, `<div class="name" title="%[1]s">%[1]s <small>%s</small></div><div class="track">`, html.EscapeString(r.Name), html.EscapeString(r.Note))
		lo, hi := 1., 0.
		for _, v := range r.Values {
			if !math.IsNaN(v) {
				lo, hi = math.Min(lo, p.X.at(v)), math.Max(hi, p.X.at(v))
			}
		}
		if hi > lo {
			fmt.Fprintf(&b, `<b style="left:%s;width:%s"></b>`, percent(lo), percent(hi-lo))
		}
		for k, v := range r.Values {
			if !math.IsNaN(v) {
				fmt.Fprintf(&b, `<i class="%s" style="left:%s" title="%s: %s"></i>`, class(p.colour(k)), percent(p.X.at(v)), html.EscapeString(p.Names[k]), p.X.text(v))
			}
		}
		b.WriteString(`</div>`)
	}
	b.WriteString(`<div></div><div class="scale">`)
	for i, m := range p.X.marks(5) {
		kind := "x"
		if i%2 == 1 {
			kind = "x odd"
		}
		fmt.Fprintf(&b, `<span class="%s" style="left:%s">%s</span>`, kind, percent(m.at), m.text)
	}
	b.WriteString(`</div></div>`)
	return b.String()
}

func (p *Dots) colour(i int) int {
	if p.Colours == nil {
		return i
	}
	return p.Colours[i]
}
