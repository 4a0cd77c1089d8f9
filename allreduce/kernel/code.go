package kernel

import (
	"encoding/binary"
	"math"
)

// The kernels of the narrow forms. Each does most of its elements in assembly, where there is one, and the rest in Go, which gives the same bits. A
// code has at least as many elements as the float32 beside it.

// encode16 writes the nearest bfloat16 of each element.
func encode16(dst []byte, v []float32) {
	n := fastLen(len(v))
	if n > 0 {
		encode16AVX2(&dst[0], first(v), n)
	}
	plainEncode16(dst[2*n:], v[n:])
}

// decode16 is the other way.
func decode16(v []float32, src []byte) {
	n := fastLen(len(v))
	if n > 0 {
		decode16AVX2(first(v), &src[0], n)
	}
	plainDecode16(v[n:], src[2*n:])
}

// decodeAdd16 is decode16 and a sum with add.
func decodeAdd16(v []float32, src []byte, add []float32) {
	n := fastLen(len(v))
	if n > 0 {
		decodeAdd16AVX2(first(v), &src[0], first(add), n)
	}
	plainDecodeAdd16(v[n:], src[2*n:], add[n:])
}

// lost16 tells what each element of v lost in its code; 0 where that is no number: nothing can make up for it.
func lost16(lost, v []float32, code []byte) {
	n := fastLen(len(v))
	if n > 0 {
		lost16AVX2(first(lost), first(v), &code[0], n)
	}
	plainLost16(lost[n:], v[n:], code[2*n:])
}

// largest returns the bits of the largest magnitude: floats without their sign are in the order of their bits.
func largest(v []float32) uint32 {
	n, most := fastLen(len(v)), uint32(0)
	if n > 0 {
		most = largestAVX2(first(v), n)
	}
	return max(most, plainLargest(v[n:]))
}

// quantise writes each element times inverse as the nearest byte, which is -127..127.
func quantise(dst []byte, v []float32, inverse float32) {
	n := fastLen(len(v))
	if n > 0 {
		quantiseAVX2(&dst[0], first(v), n, inverse)
	}
	plainQuantise(dst[n:], v[n:], inverse)
}

// dequantise is the other way.
func dequantise(v []float32, src []byte, scale float32) {
	n := fastLen(len(v))
	if n > 0 {
		dequantiseAVX2(first(v), &src[0], n, scale)
	}
	plainDequantise(v[n:], src[n:], scale)
}

// dequantiseAdd is dequantise and a sum with add.
func dequantiseAdd(v []float32, src []byte, add []float32, scale float32) {
	n := fastLen(len(v))
	if n > 0 {
		dequantiseAddAVX2(first(v), &src[0], first(add), n, scale)
	}
	plainDequantiseAdd(v[n:], src[n:], add[n:], scale)
}

// lost8 tells what each element of v lost in its byte.
func lost8(lost, v []float32, code []byte, scale float32) {
	n := fastLen(len(v))
	if n > 0 {
		lost8AVX2(first(lost), first(v), &code[0], n, scale)
	}
	plainLost8(lost[n:], v[n:], code[n:], scale)
}

// divideFloat32 divides each element.
func divideFloat32(v []float32, by float32) {
	n := fastLen(len(v))
	if n > 0 {
		divideFloat32AVX2(first(v), n, by)
	}
	divide(v[n:], by)
}

func plainEncode16(dst []byte, v []float32) {
	dst = dst[:2*len(v)]
	for i, x := range v {
		binary.LittleEndian.PutUint16(dst[2*i:], toBFloat16(x))
	}
}

func plainDecode16(v []float32, src []byte) {
	for i := range v {
		v[i] = bfloat16To(binary.LittleEndian.Uint16(src[2*i:]))
	}
}

func plainDecodeAdd16(v []float32, src []byte, add []float32) {
	add = add[:len(v)]
	for i := range v {
		v[i] = bfloat16To(binary.LittleEndian.Uint16(src[2*i:])) + add[i]
	}
}

func plainLost16(lost, v []float32, code []byte) {
	lost = lost[:len(v)]
	for i, x := range v {
		l := x - bfloat16To(binary.LittleEndian.Uint16(code[2*i:]))
		if l-l != 0 { // it, or its code, is no number
			l = 0
		}
		lost[i] = l
	}
}

func plainLargest(v []float32) uint32 {
	most := uint32(0)
	for _, x := range v {
		most = max(most, math.Float32bits(x)&0x7fffffff)
	}
	return most
}

// roundUp added leaves whole numbers below 2^22, rounded to even between two.
const roundUp = float32(3 << 22)

func plainQuantise(dst []byte, v []float32, inverse float32) {
	dst = dst[:len(v)]
	for i, x := range v {
		dst[i] = byte(math.Float32bits(float32(x*inverse)+roundUp) - math.Float32bits(roundUp)) //nolint:gosec // -127..127
	}
}

func plainDequantise(v []float32, src []byte, scale float32) {
	src = src[:len(v)]
	for i, q := range src {
		v[i] = float32(int8(q)) * scale //nolint:gosec // its bits
	}
}

func plainDequantiseAdd(v []float32, src []byte, add []float32, scale float32) {
	src, add = src[:len(v)], add[:len(v)]
	for i, q := range src {
		v[i] = float32(float32(int8(q))*scale) + add[i] //nolint:gosec // its bits
	}
}

func plainLost8(lost, v []float32, code []byte, scale float32) {
	lost, code = lost[:len(v)], code[:len(v)]
	for i, x := range v {
		lost[i] = x - float32(float32(int8(code[i]))*scale) //nolint:gosec // its bits
	}
}
