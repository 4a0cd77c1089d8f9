package allreduce

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce/kernel"
)

func drawLayout(t *rapid.T) layout {
	world := rapid.IntRange(1, 9).Draw(t, "world")
	chunk := rapid.IntRange(1, 7).Draw(t, "chunk")
	depth := rapid.IntRange(1, 5).Draw(t, "depth")
	length := rapid.IntRange(0, 700).Draw(t, "length")
	l := newLayout(length, world, chunk, depth)
	if l.perSeg < 1 || l.perSeg > depth {
		t.Fatalf("newLayout(%d, %d, %d, %d): %d chunks in a segment, want 1..%d", length, world, chunk, depth, l.perSeg, depth)
	}
	return l
}

// Every element belongs to exactly one chunk, and no chunk is too large.
func TestLayoutCoversEachElementOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		covered := make([]int, l.length)
		for group := range l.groups {
			for segment := range l.world {
				for chunk := range l.perSeg {
					lo, hi := l.bounds(segment, piece{group: group, chunk: chunk})
					if hi-lo > l.chunk || lo > hi {
						t.Fatalf("%+v: chunk %d of segment %d covers [%d, %d), want at most %d elements", l, chunk, segment, lo, hi, l.chunk)
					}
					for i := lo; i < hi; i++ {
						covered[i]++
					}
				}
			}
		}
		for i, n := range covered {
			if n != 1 {
				t.Fatalf("%+v: element %d is covered %d times", l, i, n)
			}
		}
	})
}

// What a rank receives at a step is what its previous rank sends at that step,
// and what it sends at the next one.
func TestStepsFitTogether(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		world := rapid.IntRange(2, 20).Draw(t, "world")
		rank := rapid.IntRange(0, world-1).Draw(t, "rank")
		step := rapid.IntRange(0, 2*(world-1)-1).Draw(t, "step")
		got := recvSegment(rank, step, world)
		if want := sendSegment(mod(rank-1, world), step, world); got != want {
			t.Errorf("rank %d of %d receives segment %d at step %d, its previous rank sends %d", rank, world, got, step, want)
		}
		if want := sendSegment(rank, step+1, world); got != want {
			t.Errorf("rank %d of %d receives segment %d at step %d and sends %d at the next", rank, world, got, step, want)
		}
	})
}

func TestPieceOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		if l.world == 1 {
			return
		}
		index := 0
		for group := range l.groups {
			for step := range l.steps() {
				for chunk := range l.perSeg {
					if got, want := l.piece(index), (piece{group, step, chunk}); got != want {
						t.Fatalf("%+v: frame %d is %+v, want %+v", l, index, got, want)
					}
					index++
				}
			}
		}
		if index != l.frames() {
			t.Fatalf("%+v: %d frames, want %d", l, l.frames(), index)
		}
	})
}

// simulate runs the ring on plain slices, one step of all ranks at a time, and
// returns each rank's result: the layout's meaning without any transport.
func simulate(l layout, inputs [][]float32) [][]float32 {
	out := make([][]float32, len(inputs))
	for r := range inputs {
		out[r] = append([]float32(nil), inputs[r]...)
	}
	partial := make([][]float32, l.world)
	perGroup := l.steps() * l.perSeg
	for group := range l.groups {
		for chunk := range l.perSeg {
			for step := range l.steps() {
				p := l.piece(group*perGroup + step*l.perSeg + chunk)
				arriving := make([][]float32, l.world)
				for r := range l.world {
					prev := mod(r-1, l.world)
					if step == 0 {
						lo, hi := l.bounds(sendSegment(prev, 0, l.world), p)
						arriving[r] = append([]float32(nil), out[prev][lo:hi]...)
					} else {
						arriving[r] = append([]float32(nil), partial[prev]...)
					}
				}
				for r := range l.world {
					lo, hi := l.bounds(recvSegment(r, step, l.world), p)
					if l.reduces(step) {
						kernel.Reduce(kernel.Sum, kernel.Float32, Of(arriving[r]).data, Of(out[r][lo:hi]).data)
					}
					if !l.reduces(step) || l.completes(step) {
						copy(out[r][lo:hi], arriving[r])
					}
					partial[r] = arriving[r]
				}
			}
		}
	}
	return out
}

// The ring's sum is the naive sum, and each element is added in the documented
// order: x[i+1] + x[i+2] + ... + x[i] for segment i.
func TestRingSumsInDocumentedOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l := drawLayout(t)
		if l.world == 1 {
			return
		}
		value := rapid.Float32Range(-1e6, 1e6)
		inputs := make([][]float32, l.world)
		for r := range inputs {
			inputs[r] = rapid.SliceOfN(value, l.length, l.length).Draw(t, "input")
		}
		want := orderedSum(l, inputs)
		for r, got := range simulate(l, inputs) {
			for i := range want {
				if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
					t.Fatalf("%+v: rank %d element %d is %v, want %v", l, r, i, got[i], want[i])
				}
			}
		}
	})
}

// orderedSum adds each element in the order that AllReduce documents.
func orderedSum(l layout, inputs [][]float32) []float32 {
	sum := make([]float32, l.length)
	for group := range l.groups {
		for segment := range l.world {
			for chunk := range l.perSeg {
				lo, hi := l.bounds(segment, piece{group: group, chunk: chunk})
				for i := lo; i < hi; i++ {
					sum[i] = inputs[(segment+1)%l.world][i]
					for k := 2; k <= l.world; k++ {
						sum[i] += inputs[(segment+k)%l.world][i]
					}
				}
			}
		}
	}
	return sum
}
