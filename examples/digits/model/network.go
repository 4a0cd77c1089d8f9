package model

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// Network maps 64 pixels to the scores of 10 digits through one hidden layer of rectified units. One goroutine uses it
// at a time.
type Network struct {
	hidden int
	// Params are all weights in one vector: input weights [hidden][64], their biases [hidden], output weights
	// [10][hidden], their biases [10].
	Params []float32

	active, back []float32 // scratch: the hidden layer's values and their gradient
}

// ParamCount is the number of parameters of a network with that many hidden units.
func ParamCount(hidden int) int { return hidden*(Pixels+1) + Classes*(hidden+1) }

// NewNetwork gives a network with weights drawn by the seed, uniform in plus or minus sqrt(6/inputs) of their layer
// (He et al. 2015, "Delving deep into rectifiers"), and biases 0.
func NewNetwork(hidden int, seed uint64) *Network {
	n := &Network{
		hidden: hidden, Params: make([]float32, ParamCount(hidden)),
		active: make([]float32, hidden), back: make([]float32, hidden),
	}
	rng := rand.NewPCG(seed, streamWeights)
	fill := func(w []float32, inputs int) {
		bound := math.Sqrt(6 / float64(inputs))
		for i := range w {
			unit := float64(rng.Uint64()>>11) / (1 << 53)
			w[i] = float32(bound * (float64(2*unit) - 1))
		}
	}
	p := n.split(n.Params)
	fill(p.in, Pixels)
	fill(p.out, hidden)
	return n
}

// parts are views into a vector of parameters or of their gradient.
type parts struct{ in, inBias, out, outBias []float32 }

func (n *Network) split(v []float32) parts {
	a := n.hidden * Pixels
	b := a + n.hidden
	c := b + Classes*n.hidden
	return parts{in: v[:a], inBias: v[a:b], out: v[b:c], outBias: v[c:]}
}

// forward gives the scores and leaves the hidden layer in n.active.
func (n *Network) forward(p parts, x *[Pixels]float32) [Classes]float32 {
	for h := range n.hidden {
		n.active[h] = max(0, p.inBias[h]+dot(p.in[h*Pixels:(h+1)*Pixels], x[:]))
	}
	var scores [Classes]float32
	for c := range Classes {
		scores[c] = p.outBias[c] + dot(p.out[c*n.hidden:(c+1)*n.hidden], n.active)
	}
	return scores
}

// AddGradient adds the gradient of the samples' summed cross-entropy loss to grad, sample by sample, and returns the
// loss. grad has the length of Params.
func (n *Network) AddGradient(samples []Sample, indices []int, grad []float32) float64 {
	p, g := n.split(n.Params), n.split(grad)
	loss := 0.0
	for _, i := range indices {
		s := &samples[i]
		slope := n.forward(p, &s.Pixels)
		loss += softmax(&slope, s.Label)
		slope[s.Label]--
		clear(n.back)
		for c := range Classes {
			row := c * n.hidden
			axpy(slope[c], n.active, g.out[row:row+n.hidden])
			g.outBias[c] += slope[c]
			axpy(slope[c], p.out[row:row+n.hidden], n.back)
		}
		for h := range n.hidden {
			if n.active[h] > 0 {
				axpy(n.back[h], s.Pixels[:], g.in[h*Pixels:(h+1)*Pixels])
				g.inBias[h] += n.back[h]
			}
		}
	}
	return loss
}

// Loss is the mean cross-entropy of the samples.
func (n *Network) Loss(samples []Sample) float64 {
	p, sum := n.split(n.Params), 0.0
	for i := range samples {
		scores := n.forward(p, &samples[i].Pixels)
		sum += softmax(&scores, samples[i].Label)
	}
	return sum / float64(len(samples))
}

// Accuracy is the share of samples whose highest score is their label's, 0..1.
func (n *Network) Accuracy(samples []Sample) float64 {
	p, right := n.split(n.Params), 0
	for i := range samples {
		scores := n.forward(p, &samples[i].Pixels)
		best := 0
		for c := range scores {
			if scores[c] > scores[best] {
				best = c
			}
		}
		if best == samples[i].Label {
			right++
		}
	}
	return float64(right) / float64(len(samples))
}

// Hash is FNV-1a (64 bit) of the parameters' bits: equal models have equal hashes.
func (n *Network) Hash() uint64 {
	h := fnv.New64a()
	var word [4]byte
	for _, w := range n.Params {
		binary.LittleEndian.PutUint32(word[:], math.Float32bits(w))
		_, _ = h.Write(word[:]) // a hash never fails
	}
	return h.Sum64()
}

// Descend makes one step of gradient descent with momentum: velocity = momentum*velocity + gradient, and the
// parameters go against it at the given rate. The gradient is the sum of rows, each as long as Params, over count
// samples.
//
// The rows are added one by one from +0, in their order. Starting from +0 makes the sum blind to the sign of a zero:
// a row that came through the ring has +0 where its maker had -0.
func (n *Network) Descend(rows, velocity []float32, count int, rate, momentum float32) error {
	size := len(n.Params)
	if len(velocity) != size || len(rows)%size != 0 || count < 1 {
		return fmt.Errorf("descend: %d gradients and %d velocities of %d samples for %d parameters", len(rows), len(velocity), count, size)
	}
	for i := range n.Params {
		sum := float32(0)
		for at := i; at < len(rows); at += size {
			sum += rows[at]
		}
		velocity[i] = float32(momentum*velocity[i]) + sum/float32(count)
		n.Params[i] -= float32(rate * velocity[i])
	}
	return nil
}
