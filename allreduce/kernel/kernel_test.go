package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

var allTypes = []Type{Float32, Float64, Float16, BFloat16, Int8, Int32, Int64}

var allOps = []Op{Sum, Product, Min, Max}

// fill makes elements of all kinds: numbers of like and of unlike size, zeros of both signs, infinities, NaNs, the smallest, and
// any bits at all.
func fill(r *rand.Rand, t Type, data []byte) {
	for i := 0; i < len(data); i += t.Size() {
		put(data[i:], t, someBits(r, t))
	}
}

func someBits(r *rand.Rand, t Type) uint64 {
	special := []float64{0, math.Copysign(0, -1), 1, -1, math.Inf(1), math.Inf(-1), math.NaN(), 6e-8, 65504, 3.4e38, 1e-40}
	v := r.NormFloat64()
	switch r.IntN(8) {
	case 0:
		return r.Uint64()
	case 1:
		v = special[r.IntN(len(special))]
	}
	switch t {
	case Float32:
		return uint64(math.Float32bits(float32(v)))
	case Float64:
		return math.Float64bits(v)
	case Float16:
		return uint64(toFloat16(float32(v)))
	case BFloat16:
		return uint64(toBFloat16(float32(v)))
	default:
		return r.Uint64()
	}
}

func put(b []byte, t Type, bits uint64) {
	for i := range t.Size() {
		b[i] = byte(bits >> (8 * i)) // the tests run on little-endian machines
	}
}

func get(b []byte, t Type) uint64 {
	var wide [8]byte
	copy(wide[:], b[:t.Size()])
	return binary.LittleEndian.Uint64(wide[:])
}

func isNaN(t Type, bits uint64) bool {
	switch t {
	case Float32:
		return math.IsNaN(float64(math.Float32frombits(uint32(bits))))
	case Float64:
		return math.IsNaN(math.Float64frombits(bits))
	case Float16:
		return math.IsNaN(float64(float16To(uint16(bits))))
	case BFloat16:
		return math.IsNaN(float64(bfloat16To(uint16(bits))))
	default:
		return false
	}
}

// TestFastIsPlain: with assembly and without, results have the same bits, whatever the length and the alignment.
func TestFastIsPlain(t *testing.T) {
	t.Parallel()
	for _, typ := range allTypes {
		for _, op := range allOps {
			t.Run(fmt.Sprint(op, "/", typ), func(t *testing.T) {
				t.Parallel()
				if fast[typ][op] == nil {
					t.Skip("no assembly for this here")
				}
				r := rand.New(rand.NewPCG(uint64(typ), uint64(op)))
				for range 300 {
					n, shift := r.IntN(600), r.IntN(9)
					memory := make([]byte, 2*shift+2*n*typ.Size())
					dst, src := memory[shift:][:n*typ.Size()], memory[shift+n*typ.Size():][:n*typ.Size()]
					fill(r, typ, dst)
					fill(r, typ, src)
					before, want, apart := slices.Clone(dst), slices.Clone(dst), make([]byte, len(dst))
					Combine(op, typ, apart, dst, src)
					plain[typ][op](want, want, src)
					inSecond := slices.Clone(src)
					Combine(op, typ, inSecond, dst, inSecond)
					Reduce(op, typ, dst, src)
					if !slices.Equal(apart, dst) || !slices.Equal(inSecond, dst) {
						t.Fatalf("%d elements into memory of their own differ from those in place", n)
					}
					for i := 0; i < len(dst); i += typ.Size() {
						g, w := get(dst[i:], typ), get(want[i:], typ)
						if g != w && (!isNaN(typ, g) || !isNaN(typ, w)) {
							t.Fatalf("element %d of %d: %#x %v %#x is %#x, in Go %#x",
								i/typ.Size(), n, get(before[i:], typ), op, get(src[i:], typ), g, w)
						}
					}
				}
			})
		}
	}
}

// TestReduceNumbers: a few results that anybody can check.
func TestReduceNumbers(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, c := range []struct {
		op         Op
		typ        Type
		a, b, want float64
	}{
		{Sum, Float32, 1, 2, 3},
		{Product, Float64, 3, -4, -12},
		{Min, Float32, -1, 2, -1},
		{Max, Float64, -1, 2, 2},
		{Sum, Float16, 2048, 1, 2048},
		{Sum, Float16, 2050, 1, 2052},
		{Sum, Float16, 65504, 65504, math.Inf(1)},
		{Sum, BFloat16, 256, 1, 256},
		{Sum, BFloat16, 258, 1, 260},
		{Product, BFloat16, 3, 3, 9},
		{Sum, Int8, 127, 1, -128},
		{Product, Int8, 16, 17, 16},
		{Min, Int8, -3, 5, -3},
		{Max, Int32, -3, 5, 5},
		{Product, Int64, 1 << 31, 4, 1 << 33},
		{Min, Int64, -1 << 60, 5, -1 << 60},
		{Min, Float32, nan, 1, nan},
		{Min, Float32, 1, nan, nan},
		{Max, BFloat16, nan, 1, nan},
		{Max, Float64, 1, nan, nan},
	} {
		dst, src := make([]byte, 200*c.typ.Size()), make([]byte, 200*c.typ.Size())
		for i := range 200 {
			put(dst[i*c.typ.Size():], c.typ, bitsOf(c.typ, c.a))
			put(src[i*c.typ.Size():], c.typ, bitsOf(c.typ, c.b))
		}
		Reduce(c.op, c.typ, dst, src)
		for i := range 200 {
			got, want := get(dst[i*c.typ.Size():], c.typ), bitsOf(c.typ, c.want)
			if got != want && (!isNaN(c.typ, got) || !isNaN(c.typ, want)) {
				t.Errorf("%v of %v: %v and %v is %#x at %d, want %v", c.op, c.typ, c.a, c.b, got, i, c.want)
				break
			}
		}
	}
}

func bitsOf(t Type, v float64) uint64 {
	switch t {
	case Float32:
		return uint64(math.Float32bits(float32(v)))
	case Float64:
		return math.Float64bits(v)
	case Float16:
		return uint64(toFloat16(float32(v)))
	case BFloat16:
		return uint64(toBFloat16(float32(v)))
	default:
		mask := ^uint64(0) >> (64 - 8*t.Size())
		return uint64(int64(v)) & mask
	}
}

// TestHalvesRoundToNearest: each 16-bit float comes back as itself, and what lies between two neighbours, exactly computed,
// becomes the nearer one, the even one in the middle.
func TestHalvesRoundToNearest(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		from func(uint16) float32
		to   func(float32) uint16
		inf  uint16
	}{"float16": {float16To, toFloat16, 0x7c00}, "bfloat16": {bfloat16To, toBFloat16, 0x7f80}} {
		for h := range f.inf {
			v := f.from(h)
			if back := f.to(v); back != h {
				t.Fatalf("%s: %#x is %v and comes back as %#x", name, h, v, back)
			}
			if back := f.to(-v); back != h|0x8000 {
				t.Fatalf("%s: minus %v comes back as %#x", name, v, back)
			}
			if h+1 == f.inf {
				break
			}
			lo, hi := new(big.Float).SetFloat64(float64(v)), new(big.Float).SetFloat64(float64(f.from(h+1)))
			sum := new(big.Float).Add(lo, hi)
			middle, _ := sum.Quo(sum, big.NewFloat(2)).Float32()
			below, above := math.Nextafter32(middle, 0), math.Nextafter32(middle, float32(math.Inf(1)))
			if f.to(middle) != (h+1)&^1 || f.to(above) != h+1 || (h > 0 && f.to(below) != h) {
				t.Fatalf("%s: around %v, between %#x and the next: %#x %#x %#x", name, middle, h, f.to(below), f.to(middle), f.to(above))
			}
		}
	}
	if toFloat16(65519.996) != 0x7bff || toFloat16(65520) != 0x7c00 || toBFloat16(math.MaxFloat32) != 0x7f80 {
		t.Error("the largest numbers are not rounded as IEEE 754 says")
	}
}

// TestDivide: means are rounded once, and cut towards zero where they are integers.
func TestDivide(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ     Type
		v, want float64
		n       int
	}{
		{Float32, 10, 2.5, 4},
		{Float64, 1, 1.0 / 3, 3},
		{Float16, 7, 3.5, 2},
		{BFloat16, 9, 3, 3},
		{Int8, -7, -3, 2},
		{Int8, 100, 0, 300},
		{Int32, 7, 2, 3},
		{Int64, -9, -2, 4},
	} {
		data := make([]byte, 3*c.typ.Size())
		for i := range 3 {
			put(data[i*c.typ.Size():], c.typ, bitsOf(c.typ, c.v))
		}
		Divide(c.typ, data, c.n)
		for i := range 3 {
			if got := get(data[i*c.typ.Size():], c.typ); got != bitsOf(c.typ, c.want) {
				t.Errorf("%v of type %v over %d ranks: %#x, want %v", c.v, c.typ, c.n, got, c.want)
			}
		}
	}
}

// TestNames: each type and operation is found by its name, others are refused with what is allowed.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, typ := range allTypes {
		if got, err := ParseType(typ.String()); err != nil || got != typ {
			t.Errorf("%v: %v, %v", typ, got, err)
		}
	}
	for _, op := range allOps {
		if got, err := ParseOp(op.String()); err != nil || got != op {
			t.Errorf("%v: %v, %v", op, got, err)
		}
	}
	for _, name := range []string{"", "float", "FLOAT32"} {
		if _, err := ParseType(name); err == nil {
			t.Errorf("type %q is taken", name)
		}
		if _, err := ParseOp(name); err == nil {
			t.Errorf("operation %q is taken", name)
		}
	}
	if Known(0, Float32) || Known(ops, Float32) || Known(Sum, 0) || Known(Sum, types) || !Known(Max, Int64) {
		t.Error("Known is wrong")
	}
}

// BenchmarkReduce measures each kernel on a chunk that lies in the core's second cache, in bytes of one vector.
func BenchmarkReduce(b *testing.B) {
	for _, typ := range allTypes {
		for _, op := range []Op{Sum, Max} {
			b.Run(fmt.Sprint(op, "/", typ), func(b *testing.B) {
				dst, src := make([]byte, 256<<10), make([]byte, 256<<10)
				b.SetBytes(int64(len(dst)))
				for b.Loop() {
					Reduce(op, typ, dst, src)
				}
			})
			b.Run(fmt.Sprint(op, "/", typ, "/go"), func(b *testing.B) {
				dst, src := make([]byte, 256<<10), make([]byte, 256<<10)
				b.SetBytes(int64(len(dst)))
				for b.Loop() {
					plain[typ][op](dst, dst, src)
				}
			})
		}
	}
}
