package allreduce

import (
	"fmt"
	"unsafe"

	"github.com/gangline/gangline/allreduce/kernel"
)

// Type is what an element of a vector is; see package kernel.
type Type = kernel.Type

// The element types.
const (
	Float32  = kernel.Float32
	Float64  = kernel.Float64
	Float16  = kernel.Float16
	BFloat16 = kernel.BFloat16
	Int8     = kernel.Int8
	Int32    = kernel.Int32
	Int64    = kernel.Int64
)

// Op is how the elements of all ranks become one. The numbers travel on the wire: never change one.
type Op uint8

// The operations. Integers wrap as in C.
const (
	Sum     = Op(kernel.Sum)
	Product = Op(kernel.Product)
	// Min and Max of floats are a NaN if any rank's element is one.
	Min = Op(kernel.Min)
	Max = Op(kernel.Max)
	// Mean is the sum, divided once by the number of ranks. Integers are cut towards zero, and their sum wraps.
	Mean Op = 5
)

// String returns the operation's name in lower case.
func (o Op) String() string {
	if o == Mean {
		return "mean"
	}
	return kernel.Op(o).String()
}

// ParseOp finds an operation by its name.
func ParseOp(name string) (Op, error) {
	if name == Mean.String() {
		return Mean, nil
	}
	op, err := kernel.ParseOp(name)
	if err != nil {
		return 0, fmt.Errorf("%w, mean", err)
	}
	return Op(op), nil
}

// combines returns the operation between two elements.
func (o Op) combines() kernel.Op {
	if o == Mean {
		return kernel.Sum
	}
	return kernel.Op(o)
}

// Element is a Go type that a vector can have; 16-bit floats come as bits, by [Bits].
type Element interface {
	~float32 | ~float64 | ~int8 | ~int32 | ~int64
}

// Vector is memory of the caller seen as elements of one type. A call reads and writes that memory itself, until it returns. The
// zero value is a vector of no type: calls refuse it.
type Vector struct {
	typ  Type
	data []byte // in the machine's order of bytes

	wire     Wire
	feedback *Feedback
}

// Of makes a vector of a slice, without a copy.
func Of[T Element](v []T) Vector {
	var zero T
	var typ Type
	switch any(zero).(type) {
	case float32:
		typ = Float32
	case float64:
		typ = Float64
	case int8:
		typ = Int8
	case int32:
		typ = Int32
	case int64:
		typ = Int64
	}
	return Vector{typ: typ, data: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(v)*int(unsafe.Sizeof(zero)))}
}

// Bits makes a vector of memory that holds elements of any type, without a copy. It panics if the bytes are no whole number of
// elements, or the type is none.
func Bits(t Type, data []byte) Vector {
	if t.Size() == 0 || len(data)%t.Size() != 0 {
		panic(fmt.Sprintf("allreduce: %d bytes are no vector of %v", len(data), t))
	}
	return Vector{typ: t, data: data}
}

// Type returns what an element is.
func (v Vector) Type() Type { return v.typ }

// Len returns the number of elements.
func (v Vector) Len() int {
	if v.typ.Size() == 0 {
		return 0
	}
	return len(v.data) / v.typ.Size()
}

// slice returns elements lo to hi, hi not included.
func (v Vector) slice(lo, hi int) []byte { return v.data[lo*v.typ.Size() : hi*v.typ.Size()] }

// ParseType finds an element type by its name.
func ParseType(name string) (Type, error) { return kernel.ParseType(name) }
