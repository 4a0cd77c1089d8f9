package kernel

import "fmt"

// All is vectors that are combined into one result, which is written to one or more: what a rank does that sees those of others.
type All struct {
	Op   Op
	Type Type
	// From is two or more vectors; their elements are combined from left to right.
	From [][]byte
	// To takes the result: one or more vectors, each of which may be one of From itself, and else overlaps none.
	To [][]byte
	// Divide is by what the result is divided, as [Divide] does; 0 or 1: not at all.
	Divide int
	// Room is used where no assembly does it all in one pass: a multiple of 64 bytes, few enough to stay in a core's first cache with as much
	// of each vector.
	Room []byte
}

// Combine does it for bytes lo to hi of all vectors, whole elements. It panics if it cannot be done. Distinct stretches may be combined concurrently, with Room of
// their own.
func (a *All) Combine(lo, hi int) {
	if !Known(a.Op, a.Type) || len(a.From) < 2 || len(a.To) < 1 || len(a.Room) < 64 || len(a.Room)%64 != 0 || lo < 0 || lo > hi {
		panic(fmt.Sprintf("kernel: %v of %v over %d vectors into %d, bytes %d to %d, with room for %d", a.Op, a.Type, len(a.From), len(a.To), lo, hi, len(a.Room)))
	}
	for _, vectors := range [2][][]byte{a.From, a.To} { // assembly does not look
		for _, v := range vectors {
			_ = v[:len(v):len(v)][lo:hi]
		}
	}
	by := max(1, a.Divide)
	if n := fastLen((hi-lo)/4) * 4; n > 0 && a.Op == Sum && a.Type == Float32 {
		sumAllFloat32AVX2(&a.To[0], &a.From[0], len(a.To), len(a.From), lo, n, float32(by))
		lo += n
	}
	for ; lo < hi; lo += len(a.Room) {
		a.stretch(lo, min(hi, lo+len(a.Room)), by)
	}
}

// stretch is Combine of so much as Room has place for.
func (a *All) stretch(lo, hi, by int) {
	result := a.Room[:hi-lo]
	Combine(a.Op, a.Type, result, a.From[0][lo:hi], a.From[1][lo:hi])
	for _, v := range a.From[2:] {
		Reduce(a.Op, a.Type, result, v[lo:hi])
	}
	if by > 1 {
		Divide(a.Type, result, by)
	}
	for _, v := range a.To {
		copy(v[lo:hi], result)
	}
}
