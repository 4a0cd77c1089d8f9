package kernel

import (
	"math"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// TestNarrowBounds: no element is off by more than the form's documentation says, and what was lost is told exactly.
func TestNarrowBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := rapid.SampledFrom([]Narrow{Bits16, Bits8}).Draw(rt, "form")
		large := rapid.Float32Range(1e-30, 1e30).Draw(rt, "size")
		v := rapid.SliceOfN(rapid.Float32Range(-large, large), 0, 3*BlockLen).Draw(rt, "values")
		if rapid.Bool().Draw(rt, "tiny") {
			for i := range v {
				v[i] *= 1e-38
			}
		}
		code, lost, back := make([]byte, w.NarrowSize(len(v))), make([]float32, len(v)), make([]float32, len(v))
		w.Encode(code, bytesOf(v), bytesOf(lost))
		w.Decode(bytesOf(back), code)
		again := make([]byte, len(code))
		w.Encode(again, bytesOf(v), nil)
		if string(again) != string(code) {
			rt.Fatal("the code depends on whether the loss is wanted")
		}
		for i := range v {
			bound := max(0x1p-8*math.Abs(float64(v[i])), 0x1p-134)
			if w == Bits8 {
				most := 0.0
				for _, x := range v[i/BlockLen*BlockLen : min(len(v), (i/BlockLen+1)*BlockLen)] {
					most = max(most, math.Abs(float64(x)))
				}
				bound = max(most/254, 0x1p-127)
			}
			if off := math.Abs(float64(v[i]) - float64(back[i])); off > bound*(1+1e-6) {
				rt.Fatalf("element %d of %d, %v, came back as %v: off by %v, bound %v", i, len(v), v[i], back[i], off, bound)
			}
			if v[i]-back[i] != lost[i] {
				rt.Fatalf("element %d lost %v, told is %v", i, v[i]-back[i], lost[i])
			}
		}
	})
}

// TestNarrowOfNoNumbers: an infinity or a NaN is never a number afterwards.
func TestNarrowOfNoNumbers(t *testing.T) {
	t.Parallel()
	for _, w := range []Narrow{Bits16, Bits8} {
		for _, x := range []float32{float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())} {
			v := []float32{1, x, 2}
			code, back := make([]byte, w.NarrowSize(3)), make([]float32, 3)
			w.Encode(code, bytesOf(v), make([]byte, 12))
			w.Decode(bytesOf(back), code)
			if f := float64(back[1]); !math.IsNaN(f) && !math.IsInf(f, 0) {
				t.Errorf("%v became %v", x, f)
			}
		}
	}
}

func BenchmarkNarrow(b *testing.B) {
	for name, w := range map[string]Narrow{"bf16": Bits16, "int8": Bits8} {
		v, lost := make([]float32, 1<<16), make([]float32, 1<<16)
		for i := range v {
			v[i] = float32(i%1000) - 500
		}
		code := make([]byte, w.NarrowSize(len(v)))
		b.Run(name+"/encode", func(b *testing.B) {
			b.SetBytes(int64(4 * len(v)))
			for b.Loop() {
				w.Encode(code, bytesOf(v), bytesOf(lost))
			}
		})
		b.Run(name+"/decode", func(b *testing.B) {
			b.SetBytes(int64(4 * len(v)))
			for b.Loop() {
				w.Decode(bytesOf(v), code)
			}
		})
	}
}
