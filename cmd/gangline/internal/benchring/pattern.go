package benchring

import (
	"encoding/binary"
	"math"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/kernel"
)

// period is how many elements differ before the pattern repeats: small numbers, so that each sum is exact in every type.
const period = 4

// pattern is a vector whose elements are rank + i mod period, and what they must come to.
type pattern struct {
	vector allreduce.Vector
	data   []byte
	input  []byte // a stretch of the pattern
	sum    []byte
	size   int     // of an element
	within float32 // how far each element may be off, where some of it is lost on the wire
}

// stretch is how many elements are compared and filled at once.
const stretch = 1024

func newPattern(typ allreduce.Type, memory []byte, rank, ranks int) *pattern {
	p := &pattern{data: memory, size: typ.Size()}
	p.vector = allreduce.Bits(typ, p.data)
	p.input = make([]byte, stretch*p.size)
	p.sum = make([]byte, stretch*p.size)
	more := make([]byte, stretch*p.size)
	for r := range ranks {
		numbers(typ, more, r)
		if r == rank {
			copy(p.input, more)
		}
		if r == 0 {
			copy(p.sum, more)
		} else {
			kernel.Reduce(kernel.Sum, typ, p.sum, more)
		}
	}
	return p
}

// numbers writes the elements of a rank.
func numbers(typ allreduce.Type, to []byte, rank int) {
	for i := range stretch {
		v := rank%4 + i%period
		b := to[i*typ.Size():]
		switch typ {
		case allreduce.Float32:
			binary.NativeEndian.PutUint32(b, math.Float32bits(float32(v)))
		case allreduce.Float64:
			binary.NativeEndian.PutUint64(b, math.Float64bits(float64(v)))
		case allreduce.Float16:
			binary.NativeEndian.PutUint16(b, [...]uint16{0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600}[v])
		case allreduce.BFloat16:
			binary.NativeEndian.PutUint16(b, uint16(math.Float32bits(float32(v))>>16)) //nolint:gosec // the upper half
		case allreduce.Int8:
			b[0] = byte(v)
		case allreduce.Int32:
			binary.NativeEndian.PutUint32(b, uint32(v)) //nolint:gosec // below 7
		case allreduce.Int64:
			binary.NativeEndian.PutUint64(b, uint64(v)) //nolint:gosec // below 7
		}
	}
}

// over has the vector travel in a form that loses some of each element: up to what that form's documentation says.
func (p *pattern) over(w allreduce.Wire, ranks int) {
	p.vector = p.vector.Over(w)
	largest := float32(3+period-1) * float32(ranks)
	switch w {
	case allreduce.WireBFloat16:
		p.within = float32(ranks) / 256 * largest
	case allreduce.WireInt8:
		p.within = float32(ranks) / 254 * largest
	default:
		return
	}
	p.within *= float32(math.Pow(1.01, float64(ranks)))
}

// fill writes this rank's input.
func (p *pattern) fill() {
	for rest := p.data; len(rest) > 0; {
		rest = rest[copy(rest, p.input):]
	}
}

// wrong returns an element that is not the sum, or -1.
func (p *pattern) wrong() int {
	for lo := 0; lo < len(p.data); lo += len(p.sum) {
		got := p.data[lo:min(lo+len(p.sum), len(p.data))]
		if string(got) == string(p.sum[:len(got)]) {
			continue
		}
		if p.within > 0 {
			if at := p.apart(got); at >= 0 {
				return lo/p.size + at
			}
			continue
		}
		for i := range got {
			if got[i] != p.sum[i] {
				return (lo + i) / p.size
			}
		}
	}
	return -1
}

// apart returns an element of float32 that is too far from the sum, or -1.
func (p *pattern) apart(got []byte) int {
	for i := 0; i < len(got); i += p.size {
		a, b := math.Float32frombits(binary.NativeEndian.Uint32(got[i:])), math.Float32frombits(binary.NativeEndian.Uint32(p.sum[i:]))
		if !(max(a-b, b-a) <= p.within) {
			return i / p.size
		}
	}
	return -1
}
