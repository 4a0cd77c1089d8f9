package kernel

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAllIsOneAfterTheOther: many vectors into many, all types, operations and stretches, have the bits of Combine, one vector after the other, and
// of Divide; in place or not. Bytes outside the stretch stay as they were.
func TestAllIsOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		typ, op := allTypes[r.IntN(len(allTypes))], allOps[r.IntN(len(allOps))]
		if r.IntN(2) == 0 {
			typ, op = Float32, Sum // what has assembly of its own
		}
		n, size := 2+r.IntN(5), r.IntN(300)*8
		a := All{Op: op, Type: typ, Divide: r.IntN(4), Room: make([]byte, 64*(1+r.IntN(4)))}
		for range n {
			shift := r.IntN(9)
			v := make([]byte, size+shift)[shift:]
			for i := 0; i < size; i += typ.Size() {
				put(v[i:], typ, fewBits(r, typ))
			}
			a.From = append(a.From, v)
		}
		apart := make([]byte, size)
		a.To = [][]byte{apart}
		if r.IntN(2) == 0 {
			a.To = append(slices.Clone(a.From), apart)
		}
		before := make([][]byte, len(a.To))
		for i, v := range a.To {
			before[i] = slices.Clone(v)
		}
		lo := r.IntN(size/8+1) * 8
		hi := lo + r.IntN((size-lo)/8+1)*8
		want := slices.Clone(a.From[0][lo:hi])
		for _, v := range a.From[1:] {
			plain[typ][op](want, want, v[lo:hi])
		}
		if a.Divide > 1 {
			Divide(typ, want, a.Divide)
		}
		a.Combine(lo, hi)
		for i, v := range a.To {
			if !bytes.Equal(v[lo:hi], want) {
				t.Fatalf("%v of %d vectors of %v, bytes %d to %d of %d, divided by %d: vector %d differs", op, n, typ, lo, hi, size, a.Divide, i)
			}
			if !bytes.Equal(v[:lo], before[i][:lo]) || !bytes.Equal(v[hi:], before[i][hi:]) {
				t.Fatalf("%v of %d vectors of %v, bytes %d to %d of %d: others were written", op, n, typ, lo, hi, size)
			}
		}
	}
}

// fewBits is someBits without what may become a NaN: which NaN comes out is not promised.
func fewBits(r *rand.Rand, t Type) uint64 {
	switch t {
	case Float32, Float64, Float16, BFloat16:
		return bitsOf(t, r.NormFloat64())
	default:
		return someBits(r, t)
	}
}

// TestAllRefuses what cannot be done.
func TestAllRefuses(t *testing.T) {
	t.Parallel()
	v, room := make([]byte, 256), make([]byte, 64)
	two := [][]byte{v, v}
	for what, f := range map[string]func(){
		"one vector":   func() { (&All{Op: Sum, Type: Float32, From: two[:1], To: two, Room: room}).Combine(0, 64) },
		"none to take": func() { (&All{Op: Sum, Type: Float32, From: two, Room: room}).Combine(0, 64) },
		"no room":      func() { (&All{Op: Sum, Type: Float32, From: two, To: two}).Combine(0, 64) },
		"no operation": func() { (&All{Type: Float32, From: two, To: two, Room: room}).Combine(0, 64) },
		"beyond the end": func() {
			(&All{Op: Sum, Type: Float32, From: two, To: [][]byte{v[:128]}, Room: room}).Combine(0, 256)
		},
		"before it": func() { (&All{Op: Sum, Type: Float32, From: two, To: two, Room: room}).Combine(-64, 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", what)
				}
			}()
			f()
		}()
	}
}

// BenchmarkAll sums four vectors into all of them, in bytes of one vector.
func BenchmarkAll(b *testing.B) {
	const size = 1 << 20
	memory := make([]byte, 4*(size+8704)) // apart as package shm has them
	var vectors [][]byte
	for m := range 4 {
		vectors = append(vectors, memory[m*(size+8704):][:size])
	}
	a := All{Op: Sum, Type: Float32, From: vectors, To: vectors, Room: make([]byte, 4096)}
	b.SetBytes(size)
	for b.Loop() {
		a.Combine(0, size)
	}
}
