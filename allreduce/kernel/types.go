package kernel

import (
	"fmt"
	"strings"
)

// Type is what an element of a vector is. The numbers travel on the wire: never change one.
type Type uint8

// The element types. All are little-endian on the wire and of the machine's order in memory.
const (
	Float32  Type = 1
	Float64  Type = 2
	Float16  Type = 3 // IEEE 754 binary16
	BFloat16 Type = 4 // the upper half of a float32
	Int8     Type = 5
	Int32    Type = 6
	Int64    Type = 7

	types = 8
)

// Op is how two elements become one. The numbers travel on the wire: never change one.
type Op uint8

// The operations. Mean is not among them: it is a sum that is divided once, by [Divide].
const (
	Sum     Op = 1
	Product Op = 2
	Min     Op = 3
	Max     Op = 4

	ops = 5
)

// Size returns the bytes of one element, or 0 for an unknown type.
func (t Type) Size() int {
	switch t {
	case Float32, Int32:
		return 4
	case Float64, Int64:
		return 8
	case Float16, BFloat16:
		return 2
	case Int8:
		return 1
	default:
		return 0
	}
}

// String returns the name that ParseType reads.
func (t Type) String() string {
	if int(t) < len(typeNames) && typeNames[t] != "" {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// String returns the name that ParseOp reads.
func (o Op) String() string {
	if int(o) < len(opNames) && opNames[o] != "" {
		return opNames[o]
	}
	return fmt.Sprintf("operation %d", uint8(o))
}

//nolint:gochecknoglobals // tables
var (
	typeNames = [types]string{
		Float32: "float32", Float64: "float64", Float16: "float16", BFloat16: "bfloat16", Int8: "int8", Int32: "int32", Int64: "int64",
	}
	opNames = [ops]string{Sum: "sum", Product: "product", Min: "min", Max: "max"}
)

// ParseType finds a type by its name.
func ParseType(name string) (Type, error) {
	for t, n := range typeNames {
		if n == name && n != "" {
			return Type(t), nil //nolint:gosec // an index of the table
		}
	}
	return 0, fmt.Errorf("element type %q: allowed are %s", name, strings.Join(typeNames[1:], ", "))
}

// ParseOp finds an operation by its name.
func ParseOp(name string) (Op, error) {
	for o, n := range opNames {
		if n == name && n != "" {
			return Op(o), nil //nolint:gosec // an index of the table
		}
	}
	return 0, fmt.Errorf("operation %q: allowed are %s", name, strings.Join(opNames[1:], ", "))
}
