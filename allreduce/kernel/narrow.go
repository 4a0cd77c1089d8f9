package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Narrow is a form of float32 that takes fewer bytes, and loses some of the value. The numbers travel on the wire: never change one.
type Narrow uint8

// The forms.
const (
	// Bits16 is the nearest bfloat16: off by at most 2^-8 of the value, or 2^-134 if that is more.
	Bits16 Narrow = 2
	// Bits8 is one byte for each element and a scale for each block of BlockLen: off by at most 1/254 of the largest of its block, or
	// 2^-127 if that is more. A block that holds an infinity or a NaN becomes NaN as a whole.
	Bits8 Narrow = 3
)

// BlockLen is how many elements of Bits8 have one scale: more, and one large element coarsens more others; fewer, and scales cost more
// bytes than they save. With 256 they cost 1.6 %.
const BlockLen = 256

const (
	scaleBytes = 4
	steps8     = 127              // a block's largest becomes this
	leastScale = 0x1p-126         // its inverse is finite
	roundUp    = float32(3 << 22) // adding it leaves whole numbers below 2^22, rounded to even between two
)

// NarrowSize returns the bytes that n elements take.
func (w Narrow) NarrowSize(n int) int {
	if w == Bits8 {
		return n + scaleBytes*((n+BlockLen-1)/BlockLen)
	}
	return 2 * n
}

// Encode writes src, float32 in the machine's order, to dst in a narrow form, little-endian. lost, if there is one, is as long as src and takes
// what each element lost: its value less what Decode gives. It panics if a length is wrong.
func (w Narrow) Encode(dst, src, lost []byte) {
	v := view[float32](src)
	l := view[float32](lost)
	if len(dst) != w.NarrowSize(len(v)) || (len(lost) != 0 && len(lost) != len(src)) {
		panic(fmt.Sprintf("kernel: %d bytes of float32 into %d narrow ones, %d for what is lost", len(src), len(dst), len(lost)))
	}
	if w == Bits16 {
		encode16(dst, v, l)
		return
	}
	for len(v) > 0 {
		n := min(len(v), BlockLen)
		block := dst[:scaleBytes+n]
		var rest []float32
		if len(l) > 0 {
			rest, l = l[:n], l[n:]
		}
		encodeBlock(block, v[:n], rest)
		dst, v = dst[scaleBytes+n:], v[n:]
	}
}

func encode16(dst []byte, v, lost []float32) {
	dst = dst[:2*len(v)]
	for i, x := range v {
		h := toBFloat16(x)
		binary.LittleEndian.PutUint16(dst[2*i:], h)
	}
	if len(lost) == 0 {
		return
	}
	lost = lost[:len(v)]
	for i, x := range v {
		l := x - bfloat16To(binary.LittleEndian.Uint16(dst[2*i:]))
		if l-l != 0 { // it, or its code, is no number: nothing can make up for it
			l = 0
		}
		lost[i] = l
	}
}

func encodeBlock(dst []byte, v, lost []float32) {
	most := uint32(0) // of magnitudes: floats without their sign are in the order of their bits
	for _, x := range v {
		most = max(most, math.Float32bits(x)&0x7fffffff)
	}
	scale := max(math.Float32frombits(most)/steps8, leastScale)
	binary.LittleEndian.PutUint32(dst, math.Float32bits(scale)) // infinite or NaN: so is all that Decode gives
	if most >= 0x7f800000 {
		binary.LittleEndian.PutUint32(dst, 0x7fc00000)
		clear(dst[scaleBytes:])
		clear(lost) // what is no number cannot be made up for
		return
	}
	inverse := 1 / scale
	q := dst[scaleBytes:][:len(v)]
	for i, x := range v {
		q[i] = byte(math.Float32bits(float32(x*inverse)+roundUp) - math.Float32bits(roundUp)) //nolint:gosec // -127..127
	}
	if len(lost) == 0 {
		return
	}
	lost = lost[:len(v)]
	for i, x := range v {
		lost[i] = x - float32(float32(int8(q[i]))*scale) //nolint:gosec // its bits
	}
}

// Decode writes the values of a narrow form to dst, float32 in the machine's order. It panics if a length is wrong.
func (w Narrow) Decode(dst, src []byte) {
	v := view[float32](dst)
	if len(src) != w.NarrowSize(len(v)) {
		panic(fmt.Sprintf("kernel: %d narrow bytes into %d of float32", len(src), len(dst)))
	}
	if w == Bits16 {
		for i := range v {
			v[i] = bfloat16To(binary.LittleEndian.Uint16(src[2*i:]))
		}
		return
	}
	for len(v) > 0 {
		n := min(len(v), BlockLen)
		scale := math.Float32frombits(binary.LittleEndian.Uint32(src))
		q, block := src[scaleBytes:scaleBytes+n], v[:n]
		for i := range block {
			block[i] = float32(int8(q[i])) * scale //nolint:gosec // its bits
		}
		src, v = src[scaleBytes+n:], v[n:]
	}
}
