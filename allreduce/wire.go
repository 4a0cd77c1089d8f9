package allreduce

import (
	"fmt"

	"github.com/gangline/gangline/allreduce/kernel"
)

// Wire is the form in which elements of an all-reduce travel between machines. The numbers travel on the wire: never change one.
//
// A form of fewer bytes loses some of the value, each time a rank sends what it has added: n times on the way of an element over n ranks,
// its result included, which is the same on all ranks, bit by bit. With S the sum of the magnitudes that the ranks gave for an element, its
// sum is off by at most
//
//   - n * 2^-8 * S for WireBFloat16,
//   - n/254 * the largest S of its block for WireInt8, a block being up to 256 elements that lie side by side,
//
// beside what float32 itself rounds (a mean by an nth of it). Bounds hold up to a factor of 1.01^n, as what is rounded was rounded before. An infinity or a NaN stays one of the two, and with WireInt8 makes its whole
// block NaN.
//
// A [Feedback] adds what was lost to the next call's elements, so that over many calls nothing is lost but what the last one did.
type Wire uint8

// The forms.
const (
	// WireGroup is the form of [Config]: the zero value.
	WireGroup Wire = 0
	// WireExact is all bytes, and nothing lost.
	WireExact Wire = 1
	// WireBFloat16 is 2 bytes for each float32.
	WireBFloat16 = Wire(kernel.Bits16)
	// WireInt8 is 1 byte for each float32 and 4 for each block of 256.
	WireInt8 = Wire(kernel.Bits8)
)

// String returns the name that ParseWire reads.
func (w Wire) String() string {
	switch w {
	case WireBFloat16:
		return "bf16"
	case WireInt8:
		return "int8"
	case WireGroup, WireExact:
		return "exact"
	default:
		return fmt.Sprintf("form %d", uint8(w))
	}
}

// ParseWire finds a form by its name: exact, bf16 or int8.
func ParseWire(name string) (Wire, error) {
	for _, w := range []Wire{WireExact, WireBFloat16, WireInt8} {
		if name == w.String() {
			return w, nil
		}
	}
	return 0, fmt.Errorf("form on the wire %q: allowed are exact, bf16, int8", name)
}

func (w Wire) narrow() bool { return w == WireBFloat16 || w == WireInt8 }

// size returns the bytes that elements take which have this many as they are.
func (w Wire) size(bytes int) int {
	if w.narrow() {
		return kernel.Narrow(w).NarrowSize(bytes / Float32.Size())
	}
	return bytes
}

// Over returns the vector for a call in which its elements travel in a form. Only sums and means of float32 over all ranks know other
// forms than WireExact; other calls refuse the vector. All ranks give the same form. Where ranks share memory nothing travels, and nothing is lost.
func (v Vector) Over(w Wire) Vector {
	v.wire = w
	return v
}

// With returns the vector for calls in which feedback makes up for what narrow forms lose.
func (v Vector) With(f *Feedback) Vector {
	v.feedback = f
	return v
}

// Feedback keeps what this rank lost of a vector in the last call, and adds it to the elements of the next one. Each vector that is
// combined again and again has its own, on each rank; one call at a time uses it. Sums over many calls are then off by no more than one call is.
// What is no number cannot be made up for and is dropped.
type Feedback struct{ lost []byte }

// NewFeedback returns feedback for a vector of float32 of this length, with nothing lost.
func NewFeedback(length int) *Feedback {
	return &Feedback{lost: Of(make([]float32, length)).data}
}

// form decides in which form a call's elements travel.
func (g *Group) form(a *asked) (Wire, error) {
	able := a.call == callAllReduce && a.vector.typ == Float32 && (a.op == Sum || a.op == Mean)
	w := a.vector.wire
	switch {
	case w > WireInt8 || (w.narrow() && !able):
		return 0, fmt.Errorf("%v, %v of %v, cannot have %v on the wire: only AllReduce of float32 can, with sum or mean", a.call, a.op, a.vector.typ, w)
	case a.vector.feedback != nil && len(a.vector.feedback.lost) != len(a.vector.data):
		return 0, fmt.Errorf("%v of %d elements with feedback for %d", a.call, a.vector.Len(), len(a.vector.feedback.lost)/Float32.Size())
	case w == WireGroup && able:
		w = g.cfg.Wire
	}
	if !w.narrow() {
		w = WireGroup // frames of exact elements say nothing of it
	}
	return w, nil
}

// lost returns where what is lost of elements goes, if somebody wants it.
func (t *transfer) lost(lo, hi int) []byte {
	if t.vector.feedback == nil {
		return nil
	}
	return t.vector.feedback.lost[lo*Float32.Size() : hi*Float32.Size()]
}

// makeUp adds what the last call lost.
func (t *transfer) makeUp() {
	if t.vector.feedback != nil {
		kernel.Reduce(kernel.Sum, Float32, t.vector.data, t.vector.feedback.lost)
	}
}

// takeNarrow works a received frame in, and leaves in it what travels on. Each rank encodes each element once: those that it begins, those that
// it adds to and those that it completes. Its own result too comes out of the code that others get.
func (g *Group) takeNarrow(t *transfer, f *Frame, lo, hi int, w work) {
	form, mine := kernel.Narrow(t.wire), t.vector.slice(lo, hi)
	if w.reduce {
		form.Add(f.Data, mine, t.lost(lo, hi))
	}
	if w.keep {
		form.Decode(mine, f.Data)
		if t.op == Mean {
			kernel.Divide(Float32, mine, g.cfg.WorldSize)
		}
	}
}
