package quota

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func (a wide) big() *big.Int {
	v := new(big.Int).Lsh(big.NewInt(int64(a.hi)), 64)
	return v.Add(v, new(big.Int).SetUint64(a.lo))
}

// wrapped is a number modulo 2^128, signed.
func wrapped(v *big.Int) *big.Int {
	m := new(big.Int).Lsh(big.NewInt(1), 128)
	v = new(big.Int).Mod(v, m)
	if v.Bit(127) == 1 {
		v.Sub(v, m)
	}
	return v
}

func TestWideAgainstBig(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) wide {
			return wide{rapid.Uint64().Draw(t, label), rapid.Uint64().Draw(t, label)}
		}
		a, b := draw("a"), draw("b")
		n, k := rapid.Int64Min(0).Draw(t, "n"), rapid.Int64Min(0).Draw(t, "k")
		shift := rapid.UintRange(0, 127).Draw(t, "shift")
		same := func(what string, got wide, want *big.Int) {
			if got.big().Cmp(wrapped(want)) != 0 {
				t.Fatalf("%s of %v, %v, %d, %d: got %v, want %v", what, a, b, n, k, got.big(), wrapped(want))
			}
		}
		same("sum", a.plus(b), new(big.Int).Add(a.big(), b.big()))
		same("difference", a.minus(b), new(big.Int).Sub(a.big(), b.big()))
		same("product", product(n, k), new(big.Int).Mul(big.NewInt(n), big.NewInt(k)))
		same("times", a.times(n), new(big.Int).Mul(a.big(), big.NewInt(n)))
		pos := wide{a.hi >> 1, a.lo}
		same("right shift", pos.shr(shift), new(big.Int).Rsh(pos.big(), shift))
		if got, want := pos.length(), pos.big().BitLen(); got != want {
			t.Fatalf("length of %v: %d, want %d", pos.big(), got, want)
		}
		if (a.atLeast0() == wide{}) != (a.big().Sign() <= 0) {
			t.Fatalf("atLeast0 of %v is %v", a.big(), a.atLeast0().big())
		}
	})
}

func TestLog2(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := wide{rapid.Uint64().Draw(t, "hi") >> 1, rapid.Uint64Min(1).Draw(t, "lo")}
		if rapid.Bool().Draw(t, "small") {
			a.hi = 0
		}
		f, _ := new(big.Float).SetInt(a.big()).Float64()
		want := math.Log2(f) * (1 << logBits)
		if got := float64(a.log2()); math.Abs(got-want) > 2 {
			t.Fatalf("log2 of %v: got %v, want %v", a.big(), got, want)
		}
	})
	for n := range uint(64) {
		if got := (wide{0, 1 << n}).log2(); got != int64(n)<<logBits {
			t.Errorf("log2 of 2^%d: got %d", n, got)
		}
	}
}
