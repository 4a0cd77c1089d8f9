//go:build amd64 && !purego

package kernel

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"
)

// What the processor can do is found out once, when the program starts: it does not change.
//
//nolint:gochecknoglobals // a table
var (
	able = cpuid.CPU.Supports(cpuid.AVX2, cpuid.F16C)
	fast = avx2(able)
)

// avx2 is the table of the assembly, empty on a processor that lacks it. Products of int8 and all but sums of int64 have no
// instruction.
func avx2(there bool) (t [types]fastRow) {
	if !there {
		return t
	}
	t[Float32] = fastRow{Sum: sumFloat32AVX2, Product: productFloat32AVX2, Min: minFloat32AVX2, Max: maxFloat32AVX2}
	t[Float64] = fastRow{Sum: sumFloat64AVX2, Product: productFloat64AVX2, Min: minFloat64AVX2, Max: maxFloat64AVX2}
	t[Float16] = fastRow{Sum: sumFloat16AVX2, Product: productFloat16AVX2, Min: minFloat16AVX2, Max: maxFloat16AVX2}
	t[BFloat16] = fastRow{Sum: sumBFloat16AVX2, Product: productBFloat16AVX2, Min: minBFloat16AVX2, Max: maxBFloat16AVX2}
	t[Int8] = fastRow{Sum: sumInt8AVX2, Min: minInt8AVX2, Max: maxInt8AVX2}
	t[Int32] = fastRow{Sum: sumInt32AVX2, Product: productInt32AVX2, Min: minInt32AVX2, Max: maxInt32AVX2}
	t[Int64] = fastRow{Sum: sumInt64AVX2}
	return t
}

// fastLen returns how many of n float32, or of their codes, are done in assembly: whole turns of its loops.
func fastLen(n int) int {
	if !able {
		return 0
	}
	return n &^ 31
}

// first is where the elements begin; there is one at least.
func first(v []float32) *byte { return (*byte)(unsafe.Pointer(&v[0])) }
