package model

import "math/rand/v2"

// Streams of the random generator: each use of the seed has its own.
const (
	streamWeights = 1
	streamOrder   = 2 // plus the data epoch
)

// Order gives the order in which a data epoch (from 0) visits n samples: a pure function of its arguments, so that a
// training that resumes, with any number of workers, goes on where it was.
func Order(seed, epoch uint64, n int) []int {
	rng := rand.NewPCG(seed, streamOrder+epoch)
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	// Fisher-Yates by hand: the generator's numbers are documented to stay the same, rand.Perm's way to use them is not.
	for i := n - 1; i > 0; i-- {
		j := int(rng.Uint64() % uint64(i+1)) // the remainder's bias is below 1e-16 here
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// Plan says which samples a step uses. It is a plain value.
type Plan struct {
	// Samples is the size of the training set, Batch the number of samples of a step over all workers, Slices the
	// number of parts that a batch is cut into. All are at least 1.
	Samples, Batch, Slices int
	// Seed chooses the order.
	Seed uint64
}

// StepsPerEpoch is the number of steps of a pass over the training set; the last batch may be smaller.
func (p Plan) StepsPerEpoch() int { return (p.Samples + p.Batch - 1) / p.Batch }

// Epoch is the data epoch, from 0, that a step, from 0, belongs to.
func (p Plan) Epoch(step int) int { return step / p.StepsPerEpoch() }

// Indices gives a step's samples out of its data epoch's order (see Order).
func (p Plan) Indices(step int, order []int) []int {
	from := step % p.StepsPerEpoch() * p.Batch
	return order[from:min(from+p.Batch, p.Samples)]
}

// Slice gives one slice of a batch. It depends on the batch only, not on the number of workers.
func (p Plan) Slice(indices []int, slice int) []int {
	return indices[slice*len(indices)/p.Slices : (slice+1)*len(indices)/p.Slices]
}
