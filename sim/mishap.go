package sim

import (
	"math/rand/v2"
	"slices"
)

// mishap is a small thing that may go wrong at each of many occasions.
type mishap int

const (
	reportLost mishap = iota
	reportRepeated
	orderRepeated
	submitRepeated
	stubborn

	mishaps = 5
)

// chance is the probability of a mishap at each occasion.
func (r *Rates) chance(m mishap) float64 {
	switch m {
	case reportLost:
		return r.ReportLost
	case reportRepeated:
		return r.ReportRepeated
	case orderRepeated:
		return r.OrderRepeated
	case submitRepeated:
		return r.SubmitRepeated
	default:
		return r.Stubborn
	}
}

// luck decides where mishaps strike, and remembers it.
type luck struct {
	rates  *Rates
	script *[mishaps][]int // nil: rates
	rng    [mishaps]*rand.Rand
	seen   [mishaps]int // occasions
	struck [mishaps][]int
}

func newLuck(sc *Scenario) *luck {
	l := &luck{rates: &sc.Setting.Rates, script: sc.Mishaps}
	for m := range l.rng {
		l.rng[m] = stream(sc.Seed, streamMishaps+uint64(m)) //nolint:gosec // few
	}
	return l
}

// strikes decides one occasion.
func (l *luck) strikes(m mishap) bool {
	n := l.seen[m]
	l.seen[m]++
	hit := false
	if l.script != nil {
		_, hit = slices.BinarySearch(l.script[m], n)
	} else {
		hit = l.rng[m].Float64() < l.rates.chance(m)
	}
	if hit {
		l.struck[m] = append(l.struck[m], n)
	}
	return hit
}

// happens reports whether a mishap strikes now. Never in a calm world.
func (w *world) happens(m mishap) bool { return !w.set.Calm && !w.calm && w.luck.strikes(m) }
