package kernel

import "math"

// Float16 conversions follow IEEE 754 binary16: 1 bit of sign, 5 of exponent, 10 of fraction.
const (
	f16Fraction = 10
	f16Bias     = 15
	f32Fraction = 23
	f32Bias     = 127
	f16Infinity = 0x7c00
	f16Quiet    = 0x0200
)

// float16To returns the value of a binary16, exactly.
func float16To(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent := uint32(h>>f16Fraction) & 0x1f
	fraction := uint32(h) & 0x3ff
	switch {
	case exponent == 0x1f && fraction != 0:
		return math.Float32frombits(sign | 0x7fc00000 | fraction<<(f32Fraction-f16Fraction))
	case exponent == 0x1f:
		return math.Float32frombits(sign | 0x7f800000)
	case exponent != 0:
		return math.Float32frombits(sign | (exponent+f32Bias-f16Bias)<<f32Fraction | fraction<<(f32Fraction-f16Fraction))
	default: // zero, or too small for an exponent: a multiple of 2^-24, which float32 holds
		v := float32(fraction) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(v))
	}
}

// toFloat16 rounds to the nearest binary16, to even between two; what is too large becomes infinity.
func toFloat16(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	abs := bits & 0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | f16Infinity | f16Quiet | uint16(abs>>(f32Fraction-f16Fraction)&0x3ff) //nolint:gosec // masked
	case abs >= 0x477ff000: // 65,520 and more: beyond the middle between the largest binary16 and the next power
		return sign | f16Infinity
	case abs >= 0x38800000: // 2^-14: has an exponent of its own
		abs -= (f32Bias - f16Bias) << f32Fraction
		return sign | uint16(roundBits(abs, f32Fraction-f16Fraction)) //nolint:gosec // below 0x7c01
	default: // a multiple of 2^-24; adding 2^-1 to a float32 leaves just that many bits, rounded to even
		v := math.Float32frombits(abs) + 0.5
		return sign | uint16(math.Float32bits(v)-math.Float32bits(0.5)) //nolint:gosec // at most 0x400
	}
}

// bfloat16To returns the value of a bfloat16, exactly.
func bfloat16To(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// toBFloat16 rounds to the nearest bfloat16, to even between two.
func toBFloat16(f float32) uint16 {
	bits := math.Float32bits(f)
	if f != f {
		return uint16(bits>>16) | 0x40 //nolint:gosec // the upper half
	}
	return uint16(roundBits(bits, 16)) //nolint:gosec // the upper half
}

// roundBits cuts n bits off, rounding to the nearest, to even between two.
func roundBits(v uint32, n int) uint32 {
	half := uint32(1)<<(n-1) - 1
	return (v + half + v>>n&1) >> n
}
