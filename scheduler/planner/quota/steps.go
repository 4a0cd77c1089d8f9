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
// replicas agree, take most of that. So it goes by an estimate, and asks Factor
// only where that lies so close to the edge of a step that it leaves a doubt.
// What processors make different of the estimate is far less than the doubt that
// it is given, so the result is the same on all of them.
func (t *Tree) Steps(q *Queue, user string, now cluster.Time) int64 {
	is := t.Stamp(now)
	t.tick(is.at)
	mine, users := q.useOf(user)
	about := t.about(mine, q.shares.own, 1, users) + t.aboutAbove(q, is)
	doubt := float64(q.depth+1) * doubtOfLevel
	least, most := math.Floor((about-doubt)/Step), math.Floor((about+doubt)/Step)
	if least == most { // never if not a number
		return int64(least)
	}
	f := t.Factor(q, user, now)
	return (f - ((f%Step)+Step)%Step) / Step
}

// doubtOfLevel is by how many thousandths at most about is off: excess rounds
// two logarithms to 2^-logBits, and a quotient to whole thousandths.
const doubtOfLevel = 1.1

// aboutAbove is the part of an estimate that is the same for all users of a queue.
func (t *Tree) aboutAbove(q *Queue, is Stamp) (sum float64) {
	if q.stamp == is {
		return q.above
	}
	for x := q; x.parent != nil; x = x.parent {
		siblings, weights := x.besides()
		sum += t.about(x.shares.all, siblings, x.weight, weights)
	}
	q.above, q.stamp = sum, is
	return sum
}

// about estimates excess. It is not a number if it may be off by more than doubtOfLevel:
// if next to nothing is left of large numbers.
func (t *Tree) about(mine, all use, weight, weights int64) float64 {
	if weight == weights {
		return 0
	}
	part, of := t.worthAbout(mine)
	whole, ofAll := t.worthAbout(all)
	fair, w, ws := t.clock.about.hour*oneGPU, float64(weight), float64(weights)
	part, whole = part*ws+fair*w, (whole+fair)*w
	const enough = 1 << 30 // of the 52 bits of a float at least 22 are left
	if of*ws > part*enough || ofAll*w > whole*enough {
		return math.NaN()
	}
	return min(max(math.Log2(part/whole)*1000, -maxExcess), maxExcess)
}

// worthAbout estimates worth, and says how large the numbers were that it was made of.
func (t *Tree) worthAbout(u use) (worth, of float64) {
	base, grown, held := u.base.float(), t.clock.about.grown*float64(u.rate), t.clock.about.hour*float64(max(u.held, 0))
	return max(base+grown+held, 0), math.Abs(base) + math.Abs(grown) + held
}
