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
	steps8     = 127      // a block's largest becomes this
	leastScale = 0x1p-126 // its inverse is finite
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
	v, l := view[float32](src), view[float32](lost)
	w.check(dst, v)
	checkLost(v, l)
	if w == Bits16 {
		encode16(dst, v)
		if len(l) > 0 {
			lost16(l, v, dst)
		}
		return
	}
	for len(v) > 0 {
		n := min(len(v), BlockLen)
		encodeBlock(dst[:scaleBytes+n], v[:n], l[:min(n, len(l))])
		dst, v, l = dst[scaleBytes+n:], v[n:], l[min(n, len(l)):]
	}
}

// Decode writes the values of a narrow form to dst, float32 in the machine's order. It panics if a length is wrong.
func (w Narrow) Decode(dst, src []byte) {
	v := view[float32](dst)
	w.check(src, v)
	if w == Bits16 {
		decode16(v, src)
		return
	}
	for len(v) > 0 {
		n := min(len(v), BlockLen)
		dequantise(v[:n], src[scaleBytes:], scaleOf(src))
		src, v = src[scaleBytes+n:], v[n:]
	}
}

// Add makes a narrow form that of its values plus those of src, float32 in the machine's order, one to one: as Decode, a sum in float32 and
// Encode do, lost included, without memory for the values between. It panics if a length is wrong.
func (w Narrow) Add(code, src, lost []byte) {
	v, l := view[float32](src), view[float32](lost)
	w.check(code, v)
	checkLost(v, l)
	var wide [BlockLen]float32
	for len(v) > 0 {
		n := min(len(v), BlockLen)
		size := w.NarrowSize(n)
		block, sums, rest := code[:size], wide[:n], l[:min(n, len(l))]
		if w == Bits16 {
			decodeAdd16(sums, block, v[:n])
			encode16(block, sums)
			if len(rest) > 0 {
				lost16(rest, sums, block)
			}
		} else {
			dequantiseAdd(sums, block[scaleBytes:], v[:n], scaleOf(block))
			encodeBlock(block, sums, rest)
		}
		code, v, l = code[size:], v[n:], l[len(rest):]
	}
}

func (w Narrow) check(code []byte, v []float32) {
	if len(code) != w.NarrowSize(len(v)) {
		panic(fmt.Sprintf("kernel: %d narrow bytes for %d of float32", len(code), len(v)))
	}
}

func checkLost(v, lost []float32) {
	if len(lost) != 0 && len(lost) != len(v) {
		panic(fmt.Sprintf("kernel: room for what %d of float32 lost, for %d", len(lost), len(v)))
	}
}

func scaleOf(block []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(block)) }

// encodeBlock writes a scale and the bytes of up to BlockLen elements.
func encodeBlock(dst []byte, v, lost []float32) {
	most := largest(v)
	scale := max(math.Float32frombits(most)/steps8, leastScale)
	q := dst[scaleBytes:]
	if most >= 0x7f800000 { // infinite or NaN: so is all that Decode gives
		binary.LittleEndian.PutUint32(dst, 0x7fc00000)
		clear(q)
		clear(lost) // what is no number cannot be made up for
		return
	}
	binary.LittleEndian.PutUint32(dst, math.Float32bits(scale))
	quantise(q, v, 1/scale)
	if len(lost) > 0 {
		lost8(lost, v, q, scale)
	}
}
