package allreduce_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
)

var narrowForms = []allreduce.Wire{allreduce.WireBFloat16, allreduce.WireInt8}

// wireBound is how far each element of a sum may be off, as the documentation of Wire says. in is by rank.
func wireBound(w allreduce.Wire, in [][]float32) []float64 {
	n := float64(len(in))
	sizes := make([]float64, len(in[0]))
	largest := 0.0 // of any block: where blocks lie is the ring's own
	for i := range sizes {
		for r := range in {
			sizes[i] += math.Abs(float64(in[r][i]))
		}
		largest = max(largest, sizes[i])
	}
	for i, s := range sizes {
		if w == allreduce.WireInt8 {
			s = largest / 254
		} else {
			s *= 0x1p-8
		}
		sizes[i] = n*s*math.Pow(1.01, n) + n*1e-6*largest
	}
	return sizes
}

// TestNarrowWireIsWithinItsBound, on any ring, for sums and means; and all ranks have the same bits.
func TestNarrowWireIsWithinItsBound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 6).Draw(rt, "ranks")
		w := rapid.SampledFrom(narrowForms).Draw(rt, "form")
		op := rapid.SampledFrom([]allreduce.Op{allreduce.Sum, allreduce.Mean}).Draw(rt, "operation")
		groups, _ := newRing(t, n, allreduce.Config{
			Job: 1, Epoch: 1, ChunkBytes: 8 * rapid.IntRange(1, 300).Draw(rt, "chunk"), Window: rapid.IntRange(2, 8).Draw(rt, "window"), Wire: w,
		})
		defer closeAll(groups)
		length := rapid.IntRange(0, 3000).Draw(rt, "length")
		values := rapid.SliceOfN(rapid.Float32Range(-1000, 1000), 61, 61).Draw(rt, "values")
		in := make([][]float32, n)
		for r := range in {
			in[r] = make([]float32, length)
			for i := range in[r] {
				in[r][i] = values[(i*7+r*13)%len(values)]
			}
		}
		got := clone(in)
		onAll(rt, groups, func(r int, g *allreduce.Group) error { return g.AllReduce(t.Context(), allreduce.Of(got[r]), op) })
		bound := wireBound(w, in)
		for i := range length {
			want := 0.0
			for r := range in {
				want += float64(in[r][i])
			}
			limit := bound[i]
			if op == allreduce.Mean {
				want, limit = want/float64(n), limit/float64(n)
			}
			if off := math.Abs(float64(got[0][i]) - want); off > limit {
				rt.Fatalf("%v: element %d is %v, want %v: off by %v, bound %v", w, i, got[0][i], want, off, limit)
			}
			for r := range got {
				if math.Float32bits(got[r][i]) != math.Float32bits(got[0][i]) {
					rt.Fatalf("%v: element %d differs between rank 0 and %d", w, i, r)
				}
			}
		}
	})
}

// TestFeedbackMakesUp: what all calls together are off by is within the bound of one call, though each alone loses the same again and
// again. Without feedback the same sums drift: the test says so too, or it could not fail.
func TestFeedbackMakesUp(t *testing.T) {
	t.Parallel()
	const n, length, calls = 3, 700, 200
	for _, w := range narrowForms {
		drift := func(feedback bool) (worst float64, bound []float64) {
			groups, _ := newRing(t, n, allreduce.Config{ChunkBytes: 1024})
			defer closeAll(groups)
			in := inputs(n, length, 1)
			total := make([]float64, length)
			onAll(t, groups, func(r int, g *allreduce.Group) error {
				made := allreduce.NewFeedback(length)
				for range calls {
					v := slices.Clone(in[r])
					vector := allreduce.Of(v).Over(w)
					if feedback {
						vector = vector.With(made)
					}
					if err := g.AllReduce(t.Context(), vector, allreduce.Sum); err != nil {
						return err
					}
					if r == 0 {
						for i := range v {
							total[i] += float64(v[i])
						}
					}
				}
				return nil
			})
			bound = wireBound(w, in)
			for i := range total {
				want := 0.0
				for r := range in {
					want += float64(in[r][i]) * calls
				}
				worst = max(worst, math.Abs(total[i]-want)/(2*bound[i])) // with feedback a call's elements are a little larger
			}
			return worst, bound
		}
		with, _ := drift(true)
		without, _ := drift(false)
		if with > 1 {
			t.Errorf("%v: after %d calls with feedback sums are off by %.2f times the bound", w, calls, with)
		}
		if without < 3*with {
			t.Errorf("%v: without feedback sums are off by %.2f times the bound, with it by %.2f: it makes up for nothing", w, without, with)
		}
	}
}

// TestFuserOverNarrowWire: a fuser's bundles travel in its form and have feedback.
func TestFuserOverNarrowWire(t *testing.T) {
	t.Parallel()
	const n, vectors, length, steps = 2, 9, 100, 60
	groups, _ := newRing(t, n, allreduce.Config{ChunkBytes: 512})
	defer closeAll(groups)
	in := inputs(n, vectors*length, 3)
	total := make([]float64, vectors*length)
	onAll(t, groups, func(r int, g *allreduce.Group) error {
		f, err := allreduce.NewFuser(g, allreduce.FuserConfig{Type: allreduce.Float32, Op: allreduce.Sum, Wire: allreduce.WireInt8, Bytes: 1000})
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // returns nil
		for range steps {
			v := slices.Clone(in[r])
			for p := range vectors {
				if err := f.Add(p, allreduce.Of(v[p*length:(p+1)*length])); err != nil {
					return err
				}
			}
			if err := f.Flush(t.Context()); err != nil {
				return err
			}
			if r == 0 {
				for i := range v {
					total[i] += float64(v[i])
				}
			}
		}
		return nil
	})
	bound := wireBound(allreduce.WireInt8, in)
	for i := range total {
		if off := math.Abs(total[i] - steps*(float64(in[0][i])+float64(in[1][i]))); off > 2*bound[i] {
			t.Fatalf("element %d of %d steps is off by %v, bound %v", i, steps, off, 2*bound[i])
		}
	}
}

// TestWireFormsThatCannotBe are refused before anything is sent, and ranks that disagree are named.
func TestWireFormsThatCannotBe(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 2, allreduce.Config{Job: 7, Epoch: 3})
	defer closeAll(groups)
	onAll(t, groups, func(r int, g *allreduce.Group) error {
		v := allreduce.Of(make([]float32, 10))
		for what, err := range map[string]error{
			"only AllReduce of float32 can": g.AllReduce(t.Context(), v.Over(allreduce.WireBFloat16), allreduce.Max),
			"AllGather":                     g.AllGather(t.Context(), v.Over(allreduce.WireInt8)),
			"float64":                       g.AllReduce(t.Context(), allreduce.Of(make([]float64, 10)).Over(allreduce.WireInt8), allreduce.Sum),
			"form 9":                        g.AllReduce(t.Context(), v.Over(9), allreduce.Sum),
			"feedback for 11":               g.AllReduce(t.Context(), v.Over(allreduce.WireInt8).With(allreduce.NewFeedback(11)), allreduce.Sum),
		} {
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%v, want an error that says %q", err, what)
			}
		}
		forms := []allreduce.Wire{allreduce.WireExact, allreduce.WireInt8}
		if err := g.AllReduce(t.Context(), v.Over(forms[r]), allreduce.Sum); err == nil || !strings.Contains(err.Error(), "int8 on the wire") {
			return fmt.Errorf("%v, want int8 to be named", err) //nolint:errorlint // for a text
		}
		return nil
	})
}
