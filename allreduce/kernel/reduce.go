package kernel

import "fmt"

// block is how many bytes the assembly takes at a time; the rest of a vector is done in Go.
const block = 128

// fastRow is the assembly for one type in the order of Op; nil where there is none. n is in bytes, a multiple of block.
type fastRow = [ops]func(dst, a, b *byte, n int)

// Reduce makes each element of dst the result of itself and that of src: Combine with dst as its own first part.
func Reduce(op Op, t Type, dst, src []byte) { Combine(op, t, dst, dst, src) }

// Combine makes each element of dst the result of those of a and b: dst[i] = a[i] op b[i]. All hold elements of one type, in the
// machine's order of bytes, and are equally long, a multiple of the element's size; else it panics, as it does for a type or an
// operation that is none. dst may be a or b itself; apart from that they must not overlap. Distinct vectors may be combined concurrently.
func Combine(op Op, t Type, dst, a, b []byte) {
	if !Known(op, t) || len(a) != len(dst) || len(b) != len(dst) || len(dst)%t.Size() != 0 {
		panic(fmt.Sprintf("kernel: %v of %v over %d and %d bytes into %d", op, t, len(a), len(b), len(dst)))
	}
	done := 0
	if f := fast[t][op]; f != nil && len(dst) >= block {
		done = len(dst) &^ (block - 1)
		f(&dst[0], &a[0], &b[0], done)
	}
	plain[t][op](dst[done:], a[done:], b[done:])
}

// Known says whether Reduce can do this.
func Known(op Op, t Type) bool { return t.Size() > 0 && op >= Sum && op < ops }

// Divide makes each element of data that many times smaller, n >= 1: the mean of what was summed over n ranks. Floats are divided in
// float32, float64 in float64, and rounded once; integers are cut towards zero.
func Divide(t Type, data []byte, n int) {
	switch t {
	case Float32:
		divideFloat32(view[float32](data), float32(n))
	case Float64:
		divide(view[float64](data), float64(n))
	case Float16:
		divideHalves(view[uint16](data), n, float16To, toFloat16)
	case BFloat16:
		divideHalves(view[uint16](data), n, bfloat16To, toBFloat16)
	case Int8:
		v := view[int8](data)
		for i := range v {
			v[i] = int8(int(v[i]) / n) //nolint:gosec // not larger than it was
		}
	case Int32:
		v := view[int32](data)
		for i := range v {
			v[i] = int32(int(v[i]) / n) //nolint:gosec // not larger than it was
		}
	case Int64:
		divide(view[int64](data), int64(n))
	default:
		panic(fmt.Sprintf("kernel: mean of %v", t))
	}
}

func divide[T number](data []T, n T) {
	for i := range data {
		data[i] /= n
	}
}

func divideHalves(data []uint16, n int, from func(uint16) float32, to func(float32) uint16) {
	for i := range data {
		data[i] = to(from(data[i]) / float32(n))
	}
}
