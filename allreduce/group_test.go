package allreduce_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
)

func TestAllReduceSums(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 4, 5, 8} {
		t.Run(fmt.Sprintf("ranks=%d", n), func(t *testing.T) {
			t.Parallel()
			groups, _ := newRing(t, n, allreduce.Config{Job: 7, Epoch: 3, ChunkBytes: 1024})
			defer closeAll(groups)
			for _, length := range []int{0, 1, n - 1, n, n + 1, 1000, 256*n*4 + 1, 50_001} {
				in := inputs(n, length, 1)
				got := clone(in)
				for r, err := range reduceAll(t.Context(), groups, got) {
					if err != nil {
						t.Fatalf("%d elements: AllReduce on rank %d: %v", length, r, err)
					}
				}
				checkSums(t, got, in)
			}
		})
	}
}

// Any shape of vector, ring, chunk and window ends with the right sum on all
// ranks: in particular, no window makes the ring lock up.
func TestAllReduceAnyShape(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(rt, "ranks")
		cfg := allreduce.Config{
			Job: 1, Epoch: 1,
			ChunkBytes: 8 * rapid.IntRange(1, 20).Draw(rt, "chunk"),
			Window:     rapid.IntRange(2, 12).Draw(rt, "window"),
		}
		groups, _ := newRing(t, n, cfg)
		defer closeAll(groups)
		for call := range rapid.IntRange(1, 4).Draw(rt, "calls") {
			if rapid.Bool().Draw(rt, "barrier") {
				barrierAll(t, groups)
			}
			in := inputs(n, rapid.IntRange(0, 3000).Draw(rt, "length"), call)
			got := clone(in)
			for r, err := range reduceAll(t.Context(), groups, got) {
				if err != nil {
					rt.Fatalf("AllReduce on rank %d: %v", r, err)
				}
			}
			checkSums(t, got, in)
		}
	})
}

func barrierAll(t testing.TB, groups []*allreduce.Group) {
	t.Helper()
	var all errgroup.Group
	for _, g := range groups {
		all.Go(func() error { return g.Barrier(t.Context()) })
	}
	if err := all.Wait(); err != nil {
		t.Fatalf("Barrier: %v", err)
	}
}

// Two runs with the same inputs give the same bits.
func TestAllReduceIsReproducible(t *testing.T) {
	t.Parallel()
	run := func() [][]float32 {
		groups, _ := newRing(t, 5, allreduce.Config{ChunkBytes: 256})
		defer closeAll(groups)
		data := inputs(5, 4321, 9)
		for r, err := range reduceAll(t.Context(), groups, data) {
			if err != nil {
				t.Fatalf("AllReduce on rank %d: %v", r, err)
			}
		}
		return data
	}
	first, second := run(), run()
	for i := range first[0] {
		if math.Float32bits(first[0][i]) != math.Float32bits(second[0][i]) {
			t.Fatalf("element %d is %v in the first run, %v in the second", i, first[0][i], second[0][i])
		}
	}
}

// The caller may overwrite its buffer at once after AllReduce returned, while
// slower ranks still work on the same call.
func TestBufferBelongsToCallerAfterReturn(t *testing.T) {
	t.Parallel()
	const n, length, calls = 4, 5000, 30
	groups, _ := newRing(t, n, allreduce.Config{ChunkBytes: 512})
	defer closeAll(groups)
	var all errgroup.Group
	for r, g := range groups {
		all.Go(func() error {
			data := make([]float32, length)
			for call := range calls {
				for i := range data {
					data[i] = float32(r + call + i%10)
				}
				if err := g.AllReduce(t.Context(), allreduce.Of(data), allreduce.Sum); err != nil {
					return err
				}
				for i := range data {
					if want := float32(6 + n*(call+i%10)); data[i] != want {
						return fmt.Errorf("rank %d call %d element %d is %v, want %v", r, call, i, data[i], want)
					}
					data[i] = -1e30
				}
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestMismatchedLengthsAreNamed(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 3, allreduce.Config{Job: 7, Epoch: 3})
	defer closeAll(groups)
	errs := reduceAll(t.Context(), groups, [][]float32{make([]float32, 10), make([]float32, 11), make([]float32, 10)})
	for r, err := range errs {
		var lost *allreduce.RankLostError
		if !errors.As(err, &lost) || !strings.Contains(err.Error(), "11 elements") || !strings.Contains(err.Error(), "10 elements") {
			t.Errorf("AllReduce on rank %d: %v, want a RankLostError with both lengths", r, err)
		}
	}
}

func TestConfigProblemsAreAllNamed(t *testing.T) {
	t.Parallel()
	_, err := allreduce.New(allreduce.Config{Rank: 3, WorldSize: 3, ChunkBytes: 6, Window: 1}, nil, nil)
	for _, want := range []string{"rank is 3", "chunk is 6", "window is 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want it to say %q", err, want)
		}
	}
	if _, err := allreduce.New(allreduce.Config{WorldSize: 2}, nil, nil); err == nil {
		t.Error("New without links in a world of two: no error")
	}
}

func TestCallsOfOneRankDoNotOverlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups, _ := newRing(t, 2, allreduce.Config{})
		defer closeAll(groups)
		first := make(chan error, 1)
		go func() { first <- groups[0].Barrier(t.Context()) }()
		synctest.Wait()
		if err := groups[0].Barrier(t.Context()); !errors.Is(err, allreduce.ErrBusy) {
			t.Fatalf("second Barrier on rank 0: %v, want ErrBusy", err)
		}
		if err := groups[1].Barrier(t.Context()); err != nil {
			t.Fatalf("Barrier on rank 1: %v", err)
		}
		if err := <-first; err != nil {
			t.Fatalf("first Barrier on rank 0: %v", err)
		}
	})
}

// TestStats: all ranks have counted the same calls and bytes, and no time of a call is missed.
func TestStats(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 3, allreduce.Config{Job: 1, Epoch: 1})
	defer closeAll(groups)
	for range 5 {
		onAll(t, groups, func(_ int, g *allreduce.Group) error {
			return g.AllReduce(t.Context(), allreduce.Of(make([]float32, 100)), allreduce.Sum)
		})
	}
	barrierAll(t, groups)
	for r, g := range groups {
		if s := g.Stats(); s.Calls != 6 || s.Bytes != 5*400 || s.Busy <= 0 {
			t.Errorf("rank %d made 5 sums of 400 bytes and a barrier, and counted %+v", r, s)
		}
	}
}
