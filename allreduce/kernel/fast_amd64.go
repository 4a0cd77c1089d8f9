//go:build amd64 && !purego

package kernel

import "github.com/klauspost/cpuid/v2"

// fast is decided once, when the program starts: what the processor can do does not change.
//
//nolint:gochecknoglobals // a table
var fast = avx2(cpuid.CPU.Supports(cpuid.AVX2, cpuid.F16C))

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
