package chart

import (
	"fmt"
	"math"
	"strconv"
)

// Unit is how an axis writes its numbers.
type Unit int

// Units of an axis.
const (
	Count   Unit = iota // 1200, 15k
	Percent             // of 0..100
	Seconds             // 30 s, 2 h, 12 d
)

// Axis is one direction of a plot. Min must be below Max; what lies outside is drawn at the edge. A logarithmic axis
// shows everything below Min, zero too, at Min, which must be above 0.
type Axis struct {
	Min, Max float64
	Unit     Unit
	Log      bool
}

// at is where a value lies, in 0..1.
func (a *Axis) at(v float64) float64 {
	lo, hi := a.Min, a.Max
	if a.Log {
		lo, hi, v = math.Log10(lo), math.Log10(hi), math.Log10(math.Max(v, a.Min))
	}
	if !(hi > lo) {
		return 0
	}
	return math.Min(math.Max((v-lo)/(hi-lo), 0), 1)
}

// mark is a line of the grid and its words.
type mark struct {
	at   float64 // 0..1
	text string
}

const (
	minute = 60.
	hour   = 60 * minute
	day    = 24 * hour
)

// stepsOfTime are distances between marks that people like, in seconds.
func stepsOfTime() []float64 {
	return []float64{
		1, 2, 5, 10, 15, 30, minute, 2 * minute, 5 * minute, 10 * minute, 15 * minute, 30 * minute,
		hour, 2 * hour, 3 * hour, 6 * hour, 12 * hour, day, 2 * day, 5 * day, 7 * day, 10 * day, 14 * day, 30 * day,
		60 * day, 90 * day, 180 * day, 365 * day, 2 * 365 * day, 5 * 365 * day, 10 * 365 * day,
	}
}

// marks are at most about n lines of the grid.
func (a *Axis) marks(n int) []mark {
	if a.Log {
		return a.logMarks()
	}
	step := a.step(float64(n))
	var out []mark
	for i := math.Ceil(a.Min/step - 1e-9); ; i++ {
		v := i * step
		if v > a.Max+step*1e-9 || len(out) > 64 {
			return out
		}
		out = append(out, mark{a.at(v), a.text(v)})
	}
}

// step is the distance between marks.
func (a *Axis) step(n float64) float64 {
	span := a.Max - a.Min
	if a.Unit == Seconds {
		for _, s := range stepsOfTime() {
			if span/s <= n {
				return s
			}
		}
	}
	power := math.Pow(10, math.Floor(math.Log10(math.Max(span/n, 1e-300))))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if a.Unit == Count && power*m < 1 {
			continue // there is no half job
		}
		if span/(power*m) <= n {
			return power * m
		}
	}
	return power * 10
}

// logMarks are powers of ten, and for times what people call them.
func (a *Axis) logMarks() []mark {
	var out []mark
	add := func(v float64) {
		if v >= a.Min*(1-1e-9) && v <= a.Max*(1+1e-9) {
			out = append(out, mark{a.at(v), a.text(v)})
		}
	}
	if a.Unit == Seconds {
		for _, v := range []float64{.001, .01, .1, 1, 10, minute, 10 * minute, hour, 10 * hour, 2 * day, 10 * day, 100 * day, 1000 * day} {
			add(v)
		}
		return out
	}
	for e := math.Floor(math.Log10(a.Min)); e <= math.Ceil(math.Log10(a.Max)); e++ {
		add(math.Pow(10, e))
	}
	return out
}

// text writes a value of the axis.
func (a *Axis) text(v float64) string {
	switch a.Unit {
	case Percent:
		return short(v) + " %"
	case Seconds:
		return Span(v)
	default:
		return Number(v)
	}
}

// Span writes seconds with the unit that suits them, to three digits at most: "45 s", "3.5 h", "12 d".
func Span(s float64) string {
	switch x := math.Abs(s); {
	case x == 0:
		return "0"
	case x < minute:
		return short(s) + " s"
	case x < hour:
		return short(s/minute) + " min"
	case x < 2*day:
		return short(s/hour) + " h"
	default:
		return short(s/day) + " d"
	}
}

// Number writes a number to three digits or so: "12", "1.5k", "3.2M".
func Number(v float64) string {
	switch x := math.Abs(v); {
	case x >= 999_500_000:
		return short(v/1e9) + "G"
	case x >= 999_500:
		return short(v/1e6) + "M"
	case x >= 9_999.5:
		return short(v/1e3) + "k"
	default:
		return short(v)
	}
}

// short writes a number with as many decimals as make three digits.
func short(v float64) string {
	switch x := math.Abs(v); {
	case x >= 99.95:
		return trim(v, 0)
	case x >= 9.995:
		return trim(v, 1)
	default:
		return trim(v, 2)
	}
}

// trim writes a number with some decimals at most.
func trim(v float64, decimals int) string {
	s := strconv.FormatFloat(v, 'f', decimals, 64)
	if decimals > 0 {
		for s[len(s)-1] == '0' {
			s = s[:len(s)-1]
		}
		if s[len(s)-1] == '.' {
			s = s[:len(s)-1]
		}
	}
	if s == "-0" {
		return "0"
	}
	return s
}

// Round is the largest value that an axis from 0 should show to hold v: a little more, and round.
func Round(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if v <= power*m*(1+1e-9) {
			return power * m
		}
	}
	return power * 10
}

// percent writes a part as a CSS length.
func percent(part float64) string { return trim(100*part, 2) + "%" }

// coordinate writes a number of the drawing.
func coordinate(v float64) string { return trim(v, 1) }

// class is the CSS class of the nth colour.
func class(n int) string { return fmt.Sprintf("c%d", n%Colours) }
