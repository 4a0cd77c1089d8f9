package checkpoint

import (
	"fmt"
	"unsafe"
)

// DType is the type of a tensor's elements, stored little-endian.
type DType string

// The closed list of element types, named as PyTorch names them.
const (
	Float64  DType = "float64"
	Float32  DType = "float32"
	Float16  DType = "float16"
	BFloat16 DType = "bfloat16"
	Float8E4 DType = "float8_e4m3fn"
	Float8E5 DType = "float8_e5m2"
	Int64    DType = "int64"
	Int32    DType = "int32"
	Int16    DType = "int16"
	Int8     DType = "int8"
	Uint64   DType = "uint64"
	Uint32   DType = "uint32"
	Uint16   DType = "uint16"
	Uint8    DType = "uint8" // also for any raw bytes: a serialised optimizer, a random generator's state
	Bool     DType = "bool"  // one byte each, 0 or 1
)

// Size gives the bytes of one element, 0 for an unknown type.
func (d DType) Size() int64 {
	switch d {
	case Float64, Int64, Uint64:
		return 8
	case Float32, Int32, Uint32:
		return 4
	case Float16, BFloat16, Int16, Uint16:
		return 2
	case Float8E4, Float8E5, Int8, Uint8, Bool:
		return 1
	}
	return 0
}

// Element is a Go type that a DType stands for. Of the other types, fill in a Tensor's fields and read with Reader.ReadRaw.
type Element interface {
	float32 | float64 | int64 | uint8
}

// Tensor is the part of one named tensor that one rank writes: the box of Shape at Offset inside the
// tensor of shape Global. All three have the same number of dimensions (0 for a scalar). Over all ranks the
// boxes of a name cover the tensor exactly once; Store.Commit checks it. Data holds the box's elements,
// last dimension fastest, little-endian; it is only read, and must not change until WriteShard returns.
type Tensor struct {
	Name   string
	DType  DType
	Global []int64
	Offset []int64
	Shape  []int64
	Data   []byte
}

// Whole gives a tensor that this rank writes alone and entirely. The data is not copied.
func Whole[T Element](name string, data []T, shape ...int64) Tensor {
	return Part(name, data, shape, make([]int64, len(shape)), shape)
}

// Part gives the box of shape at offset in the tensor of shape global. The data is not copied.
func Part[T Element](name string, data []T, global, offset, shape []int64) Tensor {
	return Tensor{
		Name: name, DType: dtypeOf[T](), Global: global, Offset: offset, Shape: shape, Data: bytesOf(data),
	}
}

// Share gives the part that rank writes of a one-dimensional tensor that every rank holds whole, as in
// data-parallel training: all ranks together write it once, in even parts. The data is not copied.
func Share[T Element](name string, all []T, rank, worldSize int) Tensor {
	lo, hi := ShareRange(int64(len(all)), rank, worldSize)
	return Part(name, all[lo:hi], []int64{int64(len(all))}, []int64{lo}, []int64{hi - lo})
}

// ShareRange gives rank's even part [lo, hi) of n elements; the first n mod worldSize ranks have one more.
// It panics unless 0 <= rank < worldSize.
func ShareRange(n int64, rank, worldSize int) (lo, hi int64) {
	if rank < 0 || rank >= worldSize {
		panic(fmt.Sprintf("checkpoint: rank %d of %d", rank, worldSize))
	}
	each, more := n/int64(worldSize), n%int64(worldSize)
	r := int64(rank)
	lo = r*each + min(r, more)
	hi = lo + each
	if r < more {
		hi++
	}
	return lo, hi
}

func dtypeOf[T Element]() DType {
	var zero T
	switch any(zero).(type) {
	case float32:
		return Float32
	case float64:
		return Float64
	case int64:
		return Int64
	default:
		return Uint8
	}
}

// bytesOf looks at a slice's memory as bytes. Store's Open refuses big-endian hosts, so it is the file's form.
func bytesOf[T Element](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}
