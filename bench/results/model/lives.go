package model

import (
	"math"

	"github.com/gangline/gangline/sim/trace"
)

// bins are of length, half an octave each: the first ends at binUnit seconds. A finer distribution of so few jobs would be
// their lengths themselves.
const (
	bins    = 64
	binUnit = 16.0
)

func binOf(length float64) int {
	if length < binUnit {
		return 0
	}
	return min(int(2*math.Log2(length/binUnit))+1, bins-1)
}

func binStart(bin int) float64 {
	if bin == 0 {
		return 0
	}
	return binUnit * math.Exp2(float64(bin-1)/2)
}

// lives is how long jobs of one kind run: of those that reach each bin, the part that ends in it.
type lives struct{ hazard [bins]float64 }

// wider is the weight of the distribution of all jobs in that of those of one size, in jobs.
const wider = 4

// livesOf is the distribution by GPUs.
func livesOf(jobs []trace.Job) map[int]*lives {
	type count struct{ ended, reached [bins]float64 }
	all, by := count{}, map[int]*count{}
	add := func(c *count, bin int) {
		c.ended[bin]++
		for i := range bin + 1 {
			c.reached[i]++
		}
	}
	for i := range jobs {
		gpus, bin := int(jobs[i].GPUs), binOf(jobs[i].Length.Seconds())
		if by[gpus] == nil {
			by[gpus] = &count{}
		}
		add(&all, bin)
		add(by[gpus], bin)
	}
	out := map[int]*lives{}
	for gpus, c := range by { // any order: each for itself
		l := &lives{}
		for i := range bins {
			if all.reached[i] == 0 {
				l.hazard[i] = 1
				continue
			}
			l.hazard[i] = (c.ended[i] + wider*all.ended[i]/all.reached[i]) / (c.reached[i] + wider)
		}
		out[gpus] = l
	}
	return out
}

// gittins is the least ratio, over all times for which a job that has run for so long may be run on, of the time that this
// is expected to take and the chance that the job ends in it. Ends are spread evenly over a bin.
func (l *lives) gittins(had float64) float64 {
	best, alive, took := math.Inf(1), 1.0, 0.0
	at := had
	for i := binOf(had); i < bins && alive > 1e-6; i++ {
		start, end := binStart(i), binStart(i+1)
		h := l.hazard[i]
		if at > start { // who is within the bin has only the rest of its chance to end there before him
			passed := (at - start) / (end - start)
			h = h * (1 - passed) / max(1-float64(h*passed), 1e-9)
		}
		took += float64(alive * (end - at) * (1 - h/2)) // not fused with the sum: equal on all machines
		alive *= 1 - h
		best = min(best, took/max(1-alive, 1e-9))
		at = end
	}
	return best
}
