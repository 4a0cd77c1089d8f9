package kernel

import "unsafe"

// number is an element that Go itself can compute with.
type number interface {
	float32 | float64 | int8 | int32 | int64
}

// view is a vector's memory as elements, without a copy.
func view[T number | uint16](b []byte) []T {
	var zero T
	n := len(b) / int(unsafe.Sizeof(zero))
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func sum[T number](a, b T) T     { return a + b }
func product[T number](a, b T) T { return a * b }

// least is b where neither is smaller and where only b is no number, a where a is no number: as AVX2's minimum with a blend has it.
func least[T number](a, b T) T {
	if a != a || a < b {
		return a
	}
	return b
}

func most[T number](a, b T) T {
	if a != a || a > b {
		return a
	}
	return b
}

// each makes a kernel of a function of two elements.
func each[T number](f func(a, b T) T) combine {
	return func(dst, a, b []byte) {
		d, x, y := view[T](dst), view[T](a), view[T](b)
		x, y = x[:len(d)], y[:len(d)]
		for i := range d {
			d[i] = f(x[i], y[i])
		}
	}
}

// sums is each(sum) with the addition in the loop: it is the one that speed depends on where there is no assembly.
func sums[T number](dst, a, b []byte) {
	d, x, y := view[T](dst), view[T](a), view[T](b)
	x, y = x[:len(d)], y[:len(d)]
	for i := range d {
		d[i] = x[i] + y[i]
	}
}

// halves is each for 16-bit floats, in float32.
func halves(from func(uint16) float32, to func(float32) uint16, f func(a, b float32) float32) combine {
	return func(dst, a, b []byte) {
		d, x, y := view[uint16](dst), view[uint16](a), view[uint16](b)
		x, y = x[:len(d)], y[:len(d)]
		for i := range d {
			d[i] = to(f(from(x[i]), from(y[i])))
		}
	}
}

// row is the kernels of one type in the order of Op.
type row = [ops]combine

// combine makes each element of dst the result of those of a and b, which are as long; dst may be a or b.
type combine func(dst, a, b []byte)

func numbers[T number]() row {
	return row{Sum: sums[T], Product: each(product[T]), Min: each(least[T]), Max: each(most[T])}
}

func floats16(from func(uint16) float32, to func(float32) uint16) row {
	f := func(op func(a, b float32) float32) combine { return halves(from, to, op) }
	return row{Sum: f(sum[float32]), Product: f(product[float32]), Min: f(least[float32]), Max: f(most[float32])}
}

//nolint:gochecknoglobals // a table
var plain = [types]row{
	Float32: numbers[float32](), Float64: numbers[float64](),
	Int8: numbers[int8](), Int32: numbers[int32](), Int64: numbers[int64](),
	Float16: floats16(float16To, toFloat16), BFloat16: floats16(bfloat16To, toBFloat16),
}
