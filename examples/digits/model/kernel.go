package model

import "math"

// The conversions float32(a*b) and float64(a*b) below are not noise: the language lets a compiler fuse x*y + z into one
// rounding, as it does on arm64, and forbids it across an explicit conversion.

// dot sums in four strands, which the processor runs side by side, and adds the strands in a fixed order. len(a) may
// be any, b at least as long.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	b = b[:len(a)]
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += float32(a[i] * b[i])
		s1 += float32(a[i+1] * b[i+1])
		s2 += float32(a[i+2] * b[i+2])
		s3 += float32(a[i+3] * b[i+3])
	}
	for ; i < len(a); i++ {
		s0 += float32(a[i] * b[i])
	}
	return (s0 + s1) + (s2 + s3)
}

// axpy adds factor*x to y.
func axpy(factor float32, x, y []float32) {
	y = y[:len(x)]
	for i := range x {
		y[i] += float32(factor * x[i])
	}
}

// softmax turns scores into probabilities and returns the cross-entropy of the label.
func softmax(scores *[Classes]float32, label int) float64 {
	high := scores[0]
	for _, s := range scores {
		high = max(high, s)
	}
	var powers [Classes]float64
	sum, shifted := 0.0, float64(scores[label])-float64(high)
	for c, s := range scores {
		powers[c] = exp(float64(s) - float64(high))
		sum += powers[c]
	}
	for c := range scores {
		scores[c] = float32(powers[c] / sum)
	}
	return math.Log(sum) - shifted
}

const (
	ln2High  = 6.93147180369123816490e-01 // ln 2 split as in FreeBSD's e_exp.c, so that k*ln2High is exact
	ln2Low   = 1.90821492927058770002e-10
	expTerms = 13   // of the Taylor series: the rest is below 1e-16 for |x| <= ln(2)/2
	expFloor = -700 // exp of less is as good as 0 beside exp(0) = 1
)

// exp is e to the x for x <= 0. math.Exp will not do: it has assembly for some processors, with other roundings.
func exp(x float64) float64 {
	if x < expFloor {
		return 0
	}
	if math.IsNaN(x) {
		return x
	}
	k := math.Floor(float64(x/math.Ln2) + 0.5)
	r := (x - float64(k*ln2High)) - float64(k*ln2Low)
	sum := 1.0
	for n := expTerms; n > 0; n-- {
		sum = 1 + float64(r*sum)/float64(n)
	}
	return math.Ldexp(sum, int(k))
}
