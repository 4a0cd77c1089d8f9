package chart

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestMarks: axes have few marks at numbers that people like.
func TestMarks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		axis Axis
		want string
	}{
		{Axis{Max: 10}, "0 2 4 6 8 10"},
		{Axis{Max: 3}, "0 1 2 3"},
		{Axis{Max: 600}, "0 200 400 600"},
		{Axis{Max: 100, Unit: Percent}, "0 % 20 % 40 % 60 % 80 % 100 %"},
		{Axis{Max: 1, Unit: Percent}, "0 % 0.2 % 0.4 % 0.6 % 0.8 % 1 %"},
		{Axis{Max: 36 * day, Unit: Seconds}, "0 10 d 20 d 30 d"},
		{Axis{Max: 100, Unit: Seconds}, "0 30 s 1 min 1.5 min"},
		{Axis{Min: 1, Max: 100 * day, Unit: Seconds, Log: true}, "1 s 10 s 1 min 10 min 1 h 10 h 2 d 10 d 100 d"},
		{Axis{Min: 1, Max: 1e4, Log: true}, "1 10 100 1000 10k"},
	} {
		var got []string
		for _, m := range c.axis.marks(5) {
			got = append(got, m.text)
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%+v: %s want %s", c.axis, g, c.want)
		}
	}
}

// TestMarksLaws: whatever an axis spans, its marks are on it, in order, and few.
func TestMarksLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := Axis{
			Max: math.Pow(10, rapid.Float64Range(-3, 10).Draw(t, "max")), Unit: Unit(rapid.IntRange(0, 2).Draw(t, "unit")),
			Log: rapid.Bool().Draw(t, "log"),
		}
		if a.Log {
			a.Min = a.Max / math.Pow(10, rapid.Float64Range(1, 9).Draw(t, "decades"))
		}
		marks := a.marks(6)
		if len(marks) > 14 {
			t.Fatalf("%+v has %d marks", a, len(marks))
		}
		for i, m := range marks {
			if m.at < 0 || m.at > 1 || i > 0 && m.at <= marks[i-1].at {
				t.Fatalf("%+v: mark %d is at %g: %+v", a, i, m.at, marks)
			}
		}
	})
}

// TestTexts: numbers are short.
func TestTexts(t *testing.T) {
	t.Parallel()
	got := fmt.Sprint(Number(0), Number(12.3456), " ", Number(9999), " ", Number(50143), " ", Number(1e6), " ", Number(-0.001), " ",
		Span(0), " ", Span(59), " ", Span(90), " ", Span(13552), " ", Span(3*day), " ", Span(-90), " ", Round(0), Round(13), " ", Round(576), " ", Round(1e6))
	if want := "012.3 9999 50.1k 1M 0 0 59 s 1.5 min 3.76 h 3 d -1.5 min 1 15 600 1e+06"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestPlot: a stack and a line are where their values are, and what is outside is at the edge.
func TestPlot(t *testing.T) {
	t.Parallel()
	p := Plot{
		Label: "<l>", X: Axis{Max: 100}, Y: Axis{Max: 10}, Height: 100,
		Stack: []Series{
			{Name: "a", Points: []Point{{0, 2}, {50, 4}, {100, 4}}},
			{Name: "<b>", Colour: 1, Points: []Point{{0, 1}, {50, 0}, {100, 0}}},
		},
		Lines: []Series{{Name: "l", Colour: 2, Points: []Point{{0, 0}, {50, math.NaN()}, {60, 20}, {100, 5}}}},
	}
	got := p.HTML()
	for _, want := range []string{
		`aria-label="&lt;l&gt;"`,
		`<path class="area c0" d="M0 320 500 320 500 240 1000 240L1000 400 500 400 500 400 0 400Z"><title>a</title>`,
		`<path class="area c1" d="M0 280 500 280 500 240 1000 240L1000 240 500 240 500 320 0 320Z"><title>&lt;b&gt;</title>`,
		`<path class="line c2" d="M0 400M600 0L1000 200"><title>l</title>`,
		`<li><i class="c1"></i>&lt;b&gt;</li>`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	empty := Plot{Empty: "no <job>"}
	if got := empty.HTML(); got != `<p class="empty">no &lt;job&gt;</p>` {
		t.Errorf("%s", got)
	}
}
