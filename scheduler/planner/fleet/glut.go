package fleet

import (
	"math/bits"

	"github.com/gangline/gangline/scheduler/cluster"
)

// glut is, by size in units, how much less than usual a part of a GPU is worth
// now, in thousandths of GPUs, because many such parts are free already.
type glut [units + 1]float64

// glut returns what parts of GPUs, of whatever type, lose by being many. It is
// scratch; nil: the score knows no such loss.
//
// A part waits for a share that takes it. With n parts of a size on nodes and m
// of their takers running on average if all GPUs are used by the mix, the last of them waits for n/m of a lifetime of one, and is worth 1/(1+n/m) of
// what a part is worth that is taken at once. So where a kind of part is short,
// shares leave it alone, and where there is a glut they use it up, though
// prices, which know the mix and not what is there, would have both tie: they
// often do, since all ways to cut GPUs that the mix needs cost the same.
func (r *ranks) glut() *glut {
	o, ok := r.scorer.(*outlook)
	if !ok {
		return nil
	}
	var stock [units + 1]int32
	gpus := int64(0)
	for _, p := range r.fleet.pools {
		gpus += p.sum.Total
		for w, word := range p.filled {
			for ; word != 0; word &= word - 1 {
				free := w<<6 | bits.TrailingZeros64(word)
				stock[free/unit] += p.holes[free].count
			}
		}
	}
	o.glut(&stock, gpus, &r.loss)
	return &r.loss
}

// glut fills in the loss of parts of which there is a stock, on so many GPUs.
func (o *outlook) glut(stock *[units + 1]int32, gpus int64, out *glut) {
	perGPU := float64(gpus) / o.volume
	for u := range out {
		out[u] = 0
		if running := o.takers[u] * perGPU; stock[u] > 0 && running > 0 {
			part := float64(stock[u]) / running
			out[u] = worthOfHoles * cluster.WholeGPU * o.hole[u] * part / (1 + part)
		}
	}
	out[units] = 0
}
