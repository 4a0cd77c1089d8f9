package kernel

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// codeCase is what the kernels of narrow forms are compared on.
type codeCase struct {
	v, add         []float32
	code           []byte // any bytes, two for each element
	scale, inverse float32
}

// compareCodes fails where a kernel gives other bits than its form in pure Go. Which NaN comes out of a sum or product is not promised, but in what
// is encoded it is the same.
func compareCodes(t *testing.T, c *codeCase) {
	t.Helper()
	n := len(c.v)
	bytes := func(what string, size int, fast, plain func(dst []byte)) {
		got, want := make([]byte, size+9), make([]byte, size+9)
		fast(got[1:][:size]) // at an odd place, and nothing beyond it
		plain(want[1:][:size])
		if !slices.Equal(got, want) {
			t.Fatalf("%s of %d elements of %v: %x, in Go %x", what, n, c.v, got, want)
		}
	}
	floats := func(what string, fast, plain func(dst []float32)) {
		got, want := make([]float32, n+9), make([]float32, n+9)
		fast(got[1:][:n])
		plain(want[1:][:n])
		for i := range got {
			g, w := got[i], want[i]
			if math.Float32bits(g) != math.Float32bits(w) && (g == g || w == w) {
				t.Fatalf("%s of %d elements, %v, codes %x: element %d is %v, in Go %v", what, n, c.v, c.code, i-1, g, w)
			}
		}
	}
	bytes("encode16", 2*n, func(d []byte) { encode16(d, c.v) }, func(d []byte) { plainEncode16(d, c.v) })
	floats("decode16", func(d []float32) { decode16(d, c.code) }, func(d []float32) { plainDecode16(d, c.code) })
	floats("decodeAdd16", func(d []float32) { decodeAdd16(d, c.code, c.add) }, func(d []float32) { plainDecodeAdd16(d, c.code, c.add) })
	own := make([]byte, 2*n) // their own codes: else nothing is small
	plainEncode16(own, c.v)
	for _, code := range [][]byte{c.code, own} {
		floats("lost16", func(d []float32) { lost16(d, c.v, code) }, func(d []float32) { plainLost16(d, c.v, code) })
	}
	if got, want := largest(c.v), plainLargest(c.v); got != want {
		t.Fatalf("largest of %v: %#x, in Go %#x", c.v, got, want)
	}
	few := make([]float32, n) // what quantise may be given
	for i, x := range c.v {
		if few[i] = x * c.inverse; !(few[i] >= -127 && few[i] <= 127) {
			few[i] = float32(math.Mod(float64(x), 127)) / c.inverse
		}
		if y := few[i] * c.inverse; !(y >= -127 && y <= 127) {
			few[i] = 0
		}
	}
	bytes("quantise", n, func(d []byte) { quantise(d, few, c.inverse) }, func(d []byte) { plainQuantise(d, few, c.inverse) })
	floats("dequantise", func(d []float32) { dequantise(d, c.code, c.scale) }, func(d []float32) { plainDequantise(d, c.code, c.scale) })
	floats("dequantiseAdd", func(d []float32) { dequantiseAdd(d, c.code, c.add, c.scale) },
		func(d []float32) { plainDequantiseAdd(d, c.code, c.add, c.scale) })
	floats("lost8", func(d []float32) { lost8(d, c.v, c.code, c.scale) }, func(d []float32) { plainLost8(d, c.v, c.code, c.scale) })
	floats("divideFloat32", func(d []float32) { copy(d, c.v); divideFloat32(d, c.scale) },
		func(d []float32) { copy(d, c.v); divide(d, c.scale) })
}

// TestFastCodesArePlain: the kernels of narrow forms give the same bits with assembly and without, at all lengths around a turn of their loops
// and a block, whatever the numbers.
func TestFastCodesArePlain(t *testing.T) {
	t.Parallel()
	if fastLen(BlockLen) == 0 {
		t.Skip("no assembly for this here")
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 2*BlockLen + 40 {
		if n > 200 && n%7 != 0 && n%BlockLen > 2 {
			continue
		}
		c := &codeCase{v: make([]float32, n), add: make([]float32, n), code: make([]byte, 2*n)}
		fill(r, Float32, bytesOf(c.v))
		fill(r, Float32, bytesOf(c.add))
		for i := range c.code {
			c.code[i] = byte(r.Uint32())
		}
		for _, scale := range []float32{r.Float32(), 1, leastScale, 3e38, float32(math.NaN()), 1e-40} {
			c.scale, c.inverse = scale, min(1/scale, 1/leastScale)
			if scale != scale {
				c.inverse = 1
			}
			compareCodes(t, c)
		}
	}
}

// FuzzCodes: as TestFastCodesArePlain, of any bits.
func FuzzCodes(f *testing.F) {
	f.Add(make([]byte, 400), uint32(0x3f800000))
	f.Add(slices.Repeat([]byte{0xff, 0xff, 0x7f, 0x80, 1, 0, 0, 0}, 70), uint32(0x00800000))
	f.Fuzz(func(t *testing.T, data []byte, scale uint32) {
		n := min(len(data)/10, 3*BlockLen)
		c := &codeCase{v: make([]float32, n), add: make([]float32, n), code: data[8*n:][:2*n], scale: math.Float32frombits(scale)}
		for i := range n {
			c.v[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[8*i:]))
			c.add[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[8*i+4:]))
		}
		c.inverse = 1
		if s := c.scale; s >= leastScale && s < 1e38 {
			c.inverse = 1 / s
		}
		compareCodes(t, c)
		addIsDecodeAndEncode(t, c)
	})
}

// addIsDecodeAndEncode fails where Add gives other bits than its parts do one after the other, which TestNarrowBounds holds to their
// documentation.
func addIsDecodeAndEncode(t *testing.T, c *codeCase) {
	t.Helper()
	for _, w := range []Narrow{Bits16, Bits8} {
		n := len(c.v)
		code, wide := make([]byte, w.NarrowSize(n)), make([]float32, n)
		w.Encode(code, bytesOf(c.v), nil)
		w.Decode(bytesOf(wide), code)
		plain[Float32][Sum](bytesOf(wide), bytesOf(wide), bytesOf(c.add))
		want, wantLost := make([]byte, len(code)), make([]float32, n)
		w.Encode(want, bytesOf(wide), bytesOf(wantLost))
		lost, again := make([]float32, n), slices.Clone(code)
		w.Add(code, bytesOf(c.add), bytesOf(lost))
		w.Add(again, bytesOf(c.add), nil)
		if !slices.Equal(code, again) {
			t.Fatalf("the code of %v and %v depends on whether the loss is wanted", c.v, c.add)
		}
		for i, l := range lost {
			if math.Float32bits(l) != math.Float32bits(wantLost[i]) {
				t.Fatalf("form %d: element %d of %v and %v lost %v, want %v", w, i, c.v, c.add, l, wantLost[i])
			}
		}
		if !slices.Equal(code, want) && !hasNaN(wide) {
			t.Fatalf("form %d of %v and %v: %x, want %x", w, c.v, c.add, code, want)
		}
	}
}

func hasNaN(v []float32) bool { return slices.ContainsFunc(v, func(x float32) bool { return x != x }) }

// TestNarrowAdd: Add is Decode, a sum and Encode, at all lengths up to two blocks and a little more.
func TestNarrowAdd(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 2*BlockLen + 3 {
		c := &codeCase{v: make([]float32, n), add: make([]float32, n)}
		for i := range n {
			c.v[i], c.add[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
		}
		if n%5 == 0 {
			fill(r, Float32, bytesOf(c.add))
		}
		addIsDecodeAndEncode(t, c)
	}
}

// TestNarrowAllocatesNothing: what is between a code and its sum lies on the stack.
//
//nolint:paralleltest // it counts the whole process
func TestNarrowAllocatesNothing(t *testing.T) {
	for _, w := range []Narrow{Bits16, Bits8} {
		code, v, lost := make([]byte, w.NarrowSize(1000)), make([]byte, 4000), make([]byte, 4000)
		if n := testing.AllocsPerRun(10, func() { w.Add(code, v, lost) }); n > 0 {
			t.Errorf("form %d: an Add allocates %v times", w, n)
		}
	}
}

// TestNarrowBits: codes that anybody can check, halves going to the even side.
func TestNarrowBits(t *testing.T) {
	t.Parallel()
	v := make([]float32, 40)
	v[0], v[1], v[2], v[3], v[33] = 127, 0.5, -1.5, 2.5, -127
	code := make([]byte, Bits8.NarrowSize(len(v)))
	Bits8.Encode(code, bytesOf(v), nil)
	want := make([]byte, len(code))
	binary.LittleEndian.PutUint32(want, math.Float32bits(1))
	q := unsafe.Slice((*int8)(unsafe.Pointer(&want[4])), len(v))
	q[0], q[1], q[2], q[3], q[33] = 127, 0, -2, 2, -127
	if !slices.Equal(code, want) {
		t.Errorf("int8: %x, want %x", code, want)
	}
	v[0], v[1] = 257, 259 // 256 and 260 are the nearest two with 8 bits
	code = make([]byte, Bits16.NarrowSize(len(v)))
	Bits16.Encode(code, bytesOf(v), nil)
	if a, b := binary.LittleEndian.Uint16(code), binary.LittleEndian.Uint16(code[2:]); bfloat16To(a) != 256 || bfloat16To(b) != 260 {
		t.Errorf("bf16: 257 and 259 are %v and %v", bfloat16To(a), bfloat16To(b))
	}
}
