package quota

import (
	"math"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Step is how finely those who order by Factor look at it, in thousandths of a doubling.
const Step = 125

// Steps is Factor in whole steps, rounded down.
//
// It is asked hundreds of thousands of times for each hundred times that it says
// something new, and the logarithms of Factor, which are exact so that all
// replicas agree, take most of that. So it goes by an estimate of the ratio that
// they are of, and asks Factor only where that lies so close to the edge of a step
// that it leaves a doubt. What processors make different of the estimate is far
// less than the doubt that it is given, so the result is the same on all of them.
func (t *Tree) Steps(q *Queue, user string, now cluster.Time) int64 {
	is := t.Stamp(now)
	t.tick(is.at)
	e := t.aboutAbove(q, is)
	if mine, users := q.useOf(user); users > 1 {
		e = e.times(t.about(mine, t.worthAbout(q.shares.own), 1, users))
	}
	if least := stepsIn(e.ratio / e.doubt); e.doubt == 1 || least == stepsIn(e.ratio*e.doubt) {
		return least
	}
	f := t.Factor(q, user, now)
	return (f - ((f%Step)+Step)%Step) / Step
}

// stepsIn is how many steps make a ratio, which is not negative, rounded down.
func stepsIn(ratio float64) int64 {
	const mantissa, bias = 52, 1023
	bits := math.Float64bits(ratio)
	n := (int64(bits>>mantissa) - bias) * (1000 / Step) //nolint:gosec // 11 bits
	rest := math.Float64frombits(bits&(1<<mantissa-1) | bias<<mantissa)
	if rest >= half {
		n, rest = n+4, rest/half
	}
	if rest >= quarter {
		n, rest = n+2, rest/quarter
	}
	if rest >= eighth {
		n++
	}
	return n
}

// Powers of two.
const (
	half    = math.Sqrt2
	quarter = 1.189207115002721
	eighth  = 1.0905077326652577
)

// estimate is about what Factor is the logarithm of.
type estimate struct {
	ratio float64 // of parts of the use to parts of the weight
	doubt float64 // by which factor it is off at most; 1: it is exact, infinite: it says nothing
}

func (e estimate) times(o estimate) estimate { return estimate{e.ratio * o.ratio, e.doubt * o.doubt} }

// doubtOfLevel is 2 to the power of 0.0011. By so many doublings about is off at
// most: excess rounds two logarithms to 2^-logBits, and a quotient to whole
// thousandths.
const doubtOfLevel = 1.0007627547

// largest is the ratio of maxExcess.
const largest = 1 << (maxExcess / 1000)

// aboutAbove is the part of an estimate that is the same for all users of a queue.
func (t *Tree) aboutAbove(q *Queue, is Stamp) estimate {
	if q.stamp == is {
		return q.above
	}
	e := estimate{1, 1}
	for x := q; x.parent != nil; x = x.parent {
		up := x.parent
		if up.partsAt != is {
			up.partsAt, up.parts = is, t.worthAbout(up.parted())
		}
		e = e.times(t.about(x.shares.all, up.parts, x.weight, x.weights()))
	}
	q.above, q.stamp = e, is
	return e
}

// about estimates excess. It says nothing if it may be off by more than
// doubtOfLevel: if next to nothing is left of large numbers.
func (t *Tree) about(mine use, all roughly, weight, weights int64) estimate {
	if weight == weights {
		return estimate{1, 1}
	}
	own := t.worthAbout(mine)
	fair, w, ws := t.clock.about.hour*oneGPU, float64(weight), float64(weights)
	part, whole := own.worth*ws+fair*w, (all.worth+fair)*w
	const enough = 1 << 30 // of the 52 bits of a float at least 22 are left
	if own.of*ws > part*enough || all.of*w > whole*enough {
		return estimate{1, math.Inf(1)}
	}
	switch ratio := part / whole; {
	case ratio < 1/(largest*doubtOfLevel):
		return estimate{1.0 / largest, 1}
	case ratio > largest*doubtOfLevel:
		return estimate{largest, 1}
	default:
		return estimate{ratio, doubtOfLevel}
	}
}

// roughly is an estimate of a worth, and how large the numbers were that it was made of.
type roughly struct{ worth, of float64 }

// worthAbout estimates worth.
func (t *Tree) worthAbout(u use) roughly {
	base, grown, held := u.base.float(), t.clock.about.grown*float64(u.rate), t.clock.about.hour*float64(max(u.held, 0))
	worth := base + grown + held
	if worth < 0 {
		worth = 0
	}
	return roughly{worth, math.Abs(base) + math.Abs(grown) + held}
}
