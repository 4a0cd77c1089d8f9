package allreduce_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/kernel"
)

var (
	allTypes = []allreduce.Type{
		allreduce.Float32, allreduce.Float64, allreduce.Float16, allreduce.BFloat16, allreduce.Int8, allreduce.Int32, allreduce.Int64,
	}
	allOps = []allreduce.Op{allreduce.Sum, allreduce.Product, allreduce.Min, allreduce.Max, allreduce.Mean}
)

// onAll runs fn at the same time on every rank and fails the test with what the first rank says that has an error.
func onAll(t rapid.TB, groups []*allreduce.Group, fn func(r int, g *allreduce.Group) error) {
	t.Helper()
	var all errgroup.Group
	for r, g := range groups {
		all.Go(func() error {
			if err := fn(r, g); err != nil {
				return fmt.Errorf("rank %d: %w", r, err)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatalf("%v", err)
	}
}

// combined is what the ranks' vectors come to, computed one rank after the other in the documented order: segment i begins with
// rank i+1.
func combined(in [][]byte, typ allreduce.Type, op allreduce.Op) []byte {
	n, size := len(in), typ.Size()
	out := make([]byte, len(in[0]))
	plain := kernel.Op(op)
	if op == allreduce.Mean {
		plain = kernel.Sum
	}
	for seg := range n {
		lo, hi := allreduce.Share(len(out)/size, n, seg)
		lo, hi = lo*size, hi*size
		copy(out[lo:hi], in[(seg+1)%n][lo:hi])
		for k := 2; k <= n; k++ {
			kernel.Reduce(plain, typ, out[lo:hi], in[(seg+k)%n][lo:hi])
		}
	}
	if op == allreduce.Mean && n > 1 {
		kernel.Divide(typ, out, n)
	}
	return out
}

// drawVectors gives each rank a vector of any bits, but NaNs: which of several NaNs comes out is not promised.
func drawVectors(t *rapid.T, ranks int, typ allreduce.Type) [][]byte {
	length := rapid.IntRange(0, 700).Draw(t, "length")
	noise := rapid.SliceOfN(rapid.Byte(), 64, 64).Draw(t, "noise")
	in := make([][]byte, ranks)
	for r := range in {
		in[r] = make([]byte, length*typ.Size())
		for i := range in[r] {
			in[r][i] = noise[(i*7+r*13)%len(noise)] ^ byte(i>>3)
		}
		if typ != allreduce.Int8 && typ != allreduce.Int32 && typ != allreduce.Int64 {
			for i := typ.Size() - 1; i < len(in[r]); i += typ.Size() { // the byte of the exponent: neither all ones nor near it
				in[r][i] = in[r][i]&0x83 | 0x30
			}
		}
	}
	return in
}

// TestCollectives: each collective of each type and operation, on any ring, is what one rank after the other comes to.
func TestCollectives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(rt, "ranks")
		groups, _ := newRing(t, n, allreduce.Config{
			Job: 1, Epoch: 1, ChunkBytes: 8 * rapid.IntRange(1, 40).Draw(rt, "chunk"), Window: rapid.IntRange(2, 12).Draw(rt, "window"),
		})
		defer closeAll(groups)
		for range rapid.IntRange(1, 5).Draw(rt, "calls") {
			typ := rapid.SampledFrom(allTypes).Draw(rt, "type")
			op := rapid.SampledFrom(allOps).Draw(rt, "op")
			in := drawVectors(rt, n, typ)
			got := make([][]byte, n)
			for r := range got {
				got[r] = slices.Clone(in[r])
			}
			share := func(r int) (lo, hi int) {
				lo, hi = allreduce.Share(len(in[0])/typ.Size(), n, r)
				return lo * typ.Size(), hi * typ.Size()
			}
			want := make([][]byte, n)
			switch call := rapid.SampledFrom([]string{"all-reduce", "reduce-scatter", "all-gather", "broadcast"}).Draw(rt, "call"); call {
			case "all-reduce":
				onAll(rt, groups, func(r int, g *allreduce.Group) error {
					return g.AllReduce(t.Context(), allreduce.Bits(typ, got[r]), op)
				})
				for r := range want {
					want[r] = combined(in, typ, op)
				}
			case "reduce-scatter":
				onAll(rt, groups, func(r int, g *allreduce.Group) error {
					_, _, err := g.ReduceScatter(t.Context(), allreduce.Bits(typ, got[r]), op)
					return err
				})
				whole := combined(in, typ, op)
				for r := range want {
					lo, hi := share(r)
					want[r] = slices.Clone(in[r])
					copy(want[r][lo:hi], whole[lo:hi])
				}
			case "all-gather":
				onAll(rt, groups, func(r int, g *allreduce.Group) error { return g.AllGather(t.Context(), allreduce.Bits(typ, got[r])) })
				for r := range want {
					for from := range n {
						lo, hi := share(from)
						want[r] = append(want[r], in[from][lo:hi]...)
					}
				}
			case "broadcast":
				root := rapid.IntRange(0, n-1).Draw(rt, "root")
				onAll(rt, groups, func(r int, g *allreduce.Group) error {
					return g.Broadcast(t.Context(), allreduce.Bits(typ, got[r]), root)
				})
				for r := range want {
					want[r] = in[root]
				}
			}
			for r := range want {
				if !bytes.Equal(got[r], want[r]) {
					rt.Fatalf("rank %d of %d, %v %v:\n got %x\nwant %x", r, n, typ, op, got[r], want[r])
				}
			}
		}
	})
}

// TestMismatchedCallsAreNamed: ranks that do not make the same call all learn what each of two neighbours did.
func TestMismatchedCallsAreNamed(t *testing.T) {
	t.Parallel()
	data := func() []float32 { return make([]float32, 10) }
	for name, c := range map[string]struct {
		other func(g *allreduce.Group) error
		says  string
	}{
		"operation": {func(g *allreduce.Group) error { return g.AllReduce(t.Context(), allreduce.Of(data()), allreduce.Max) }, "max"},
		"type": {func(g *allreduce.Group) error {
			return g.AllReduce(t.Context(), allreduce.Of(make([]int32, 10)), allreduce.Sum)
		}, "int32"},
		"collective": {func(g *allreduce.Group) error { return g.AllGather(t.Context(), allreduce.Of(data())) }, "AllGather"},
		"barrier":    {func(g *allreduce.Group) error { return g.Barrier(t.Context()) }, "Barrier"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			groups, _ := newRing(t, 3, allreduce.Config{Job: 7, Epoch: 3})
			defer closeAll(groups)
			errs := make([]error, 3)
			onAll(t, groups, func(r int, g *allreduce.Group) error {
				if r == 1 {
					errs[r] = c.other(g)
				} else {
					errs[r] = g.AllReduce(t.Context(), allreduce.Of(data()), allreduce.Sum)
				}
				return nil
			})
			for r, err := range errs {
				var lost *allreduce.RankLostError
				if !errors.As(err, &lost) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "sum") {
					t.Errorf("rank %d: %v, want both calls named", r, err)
				}
			}
		})
	}
}

// TestNonsenseLeavesTheGroupWhole: what cannot be a call at all is refused before anything is sent.
func TestNonsenseLeavesTheGroupWhole(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 2, allreduce.Config{})
	defer closeAll(groups)
	onAll(t, groups, func(_ int, g *allreduce.Group) error {
		v := allreduce.Of(make([]float64, 3))
		for what, err := range map[string]error{
			"vector without a type": g.AllReduce(t.Context(), allreduce.Vector{}, allreduce.Sum),
			"operation 0":           g.AllReduce(t.Context(), v, 0),
			"operation 9":           g.AllReduce(t.Context(), v, 9),
			"broadcast from rank 2": g.Broadcast(t.Context(), v, 2),
		} {
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("want an error about %q, got %v", what, err)
			}
		}
		return g.AllReduce(t.Context(), v, allreduce.Mean)
	})
}
