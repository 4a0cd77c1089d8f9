package quota

import "math/bits"

// wide is a signed 128-bit number in two's complement.
type wide struct{ hi, lo uint64 }

func (a wide) plus(b wide) wide {
	lo, carry := bits.Add64(a.lo, b.lo, 0)
	hi, _ := bits.Add64(a.hi, b.hi, carry)
	return wide{hi, lo}
}

func (a wide) minus(b wide) wide {
	lo, borrow := bits.Sub64(a.lo, b.lo, 0)
	hi, _ := bits.Sub64(a.hi, b.hi, borrow)
	return wide{hi, lo}
}

// times returns a x b for a number b that is not negative.
func (a wide) times(b int64) wide {
	hi, lo := bits.Mul64(a.lo, uint64(b)) //nolint:gosec // b is not negative
	return wide{hi + a.hi*uint64(b), lo}  //nolint:gosec // b is not negative
}

// product returns a x b for numbers that are not negative.
func product(a, b int64) wide {
	hi, lo := bits.Mul64(uint64(a), uint64(b)) //nolint:gosec // neither is negative
	return wide{hi, lo}
}

// atLeast0 returns a, or 0 if a is negative.
func (a wide) atLeast0() wide {
	if a.hi>>63 != 0 {
		return wide{}
	}
	return a
}

// shr returns a / 2^n rounded down, for a that is not negative.
func (a wide) shr(n uint) wide {
	switch {
	case n == 0:
		return a
	case n >= 64:
		return wide{0, a.hi >> (n - 64)}
	default:
		return wide{a.hi >> n, a.hi<<(64-n) | a.lo>>n}
	}
}

// length is the number of bits of a, which is not negative.
func (a wide) length() int {
	if a.hi != 0 {
		return 64 + bits.Len64(a.hi)
	}
	return bits.Len64(a.lo)
}

// float returns a as a float: off by one part in 2^52 of it, and by 2^12.
func (a wide) float() float64 {
	return float64(int64(a.hi))*(1<<64) + float64(a.lo) //nolint:gosec // a number in two's complement
}

// logBits is how many bits log2 has after the point.
const logBits = 16

// log2 returns the binary logarithm of a positive number, rounded down, in
// units of 2^-logBits. Each squaring of the mantissa yields one more bit.
func (a wide) log2() int64 {
	n := a.length()
	m := a
	if n > 64 {
		m = a.shr(uint(n - 64)) //nolint:gosec // n is above 64
	}
	mantissa := m.lo << uint(64-min(n, 64)) //nolint:gosec // not negative; the highest bit is set now: 1 <= mantissa / 2^63 < 2
	log := int64(n - 1)
	for range logBits {
		hi, lo := bits.Mul64(mantissa, mantissa)
		bit := hi >> 63 // the square is 2 or more; a branch would go wrong half of the time
		log = log<<1 | int64(bit)
		mantissa = hi<<(1-bit) | lo>>63&(1-bit)
	}
	return log
}
