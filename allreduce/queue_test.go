package allreduce_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
)

// TestStartedCalls: ranks start calls in orders of their own, by the ring and in shared memory, with calls that wait between; each ends
// with the bits that a call which waits has.
func TestStartedCalls(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(rt, "ranks")
		cfg := allreduce.Config{Job: 1, Epoch: 1, ChunkBytes: 64, Window: rapid.IntRange(2, 8).Draw(rt, "window")}
		groups, _ := newRing(t, n, cfg)
		if n > 1 && rapid.Bool().Draw(rt, "shared") {
			closeAll(groups)
			groups, _ = newSharing(t, n, cfg)
		}
		defer closeAll(groups)
		calls := rapid.IntRange(1, 30).Draw(rt, "calls")
		seed := rapid.Uint64().Draw(rt, "seed")
		in := make([][][]float32, calls)
		for c := range in {
			in[c] = inputs(n, c*17%400, c)
		}
		want, got := make([][][]float32, calls), make([][][]float32, calls)
		for c := range in {
			want[c], got[c] = clone(in[c]), clone(in[c])
		}
		onAll(rt, groups, func(r int, g *allreduce.Group) error {
			for c := range want {
				if err := g.AllReduce(t.Context(), allreduce.Of(want[c][r]), allreduce.Sum); err != nil {
					return err
				}
			}
			handles := make([]*allreduce.Handle, calls)
			for _, c := range rand.New(rand.NewPCG(seed, uint64(r))).Perm(calls) { //nolint:gosec // a test's order
				h, err := g.StartAllReduce(uint64(c), allreduce.Of(got[c][r]), allreduce.Sum) //nolint:gosec // small
				if err != nil {
					return err
				}
				handles[c] = h
			}
			if err := g.Barrier(t.Context()); err != nil { // runs after all of them
				return err
			}
			for c, h := range handles {
				if done, err := h.Test(); !done || err != nil {
					return fmt.Errorf("call %d after a barrier: done %v, error %w", c, done, err)
				}
			}
			return nil
		})
		for c := range got {
			checkSums(t, got[c], in[c])
			for r := range got[c] {
				if !slices.Equal(got[c][r], want[c][r]) {
					rt.Fatalf("call %d on rank %d differs from one that waits", c, r)
				}
			}
		}
	})
}

// TestTagsThatCannotBe: each mistake is told and leaves the group whole.
func TestTagsThatCannotBe(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 2, allreduce.Config{})
	defer closeAll(groups)
	onAll(t, groups, func(_ int, g *allreduce.Group) error {
		v := allreduce.Of(make([]float32, 4))
		h, err := g.StartAllReduce(1, v, allreduce.Sum)
		if err != nil {
			return err
		}
		for what, err := range map[string]error{
			"tag 1 was started before": failed(g.StartAllReduce(1, v, allreduce.Sum)),
			"too far ahead of tag 0":   failed(g.StartAllReduce(allreduce.MaxInFlight, v, allreduce.Sum)),
			"tag 0 was not started":    g.Barrier(t.Context()),
		} {
			if !errors.Is(err, allreduce.ErrTag) || !strings.Contains(err.Error(), what) {
				t.Errorf("%v, want an ErrTag that says %q", err, what)
			}
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.Wait(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait with a context that ended: %v", err)
		}
		if _, err := g.StartAllReduce(0, v, allreduce.Sum); err != nil {
			return err
		}
		if g.NextTag() != 2 || g.NextTag() != 3 {
			t.Error("NextTag does not go on after the largest tag")
		}
		return h.Wait(t.Context())
	})
}

func failed[T any](_ T, err error) error { return err }

// TestStartedCallsEndWithTheGroup: who waits for a call that a lost rank keeps from ending learns who that is, and so do those behind it.
func TestStartedCallsEndWithTheGroup(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups, ends := newRing(t, 3, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect})
		defer closeAll(groups)
		barrierAll(t, groups)
		ends[1].Next.Freeze()
		ends[1].Prev.Freeze()
		onOthers(groups, 1, func(r int, g *allreduce.Group) {
			var handles []*allreduce.Handle
			for tag := range uint64(5) {
				h, err := g.StartAllReduce(tag, allreduce.Of(make([]float32, 100)), allreduce.Sum)
				if err != nil {
					t.Errorf("rank %d: %v", r, err)
					return
				}
				handles = append(handles, h)
			}
			for _, h := range handles {
				var lost *allreduce.RankLostError
				if err := h.Wait(t.Context()); !errors.As(err, &lost) || lost.Rank != 1 {
					t.Errorf("rank %d, tag %d: %v, want that rank 1 is lost", r, h.Tag(), err)
				}
			}
			if _, err := g.StartAllReduce(5, allreduce.Of(make([]float32, 1)), allreduce.Sum); err == nil {
				t.Errorf("rank %d: a broken group lets calls start", r)
			}
		})
	})
}

// TestDifferentTagsAreNamed: a call that waits on one rank and one with a tag on another do not mix.
func TestDifferentTagsAreNamed(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 2, allreduce.Config{Job: 7, Epoch: 3})
	defer closeAll(groups)
	onAll(t, groups, func(r int, g *allreduce.Group) error {
		v := allreduce.Of(make([]float32, 10))
		var err error
		if r == 0 {
			err = g.AllReduce(t.Context(), v, allreduce.Sum)
		} else {
			h, started := g.StartAllReduce(0, v, allreduce.Sum)
			if started != nil {
				return started
			}
			err = h.Wait(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), "tag 0") {
			return fmt.Errorf("%v, want tag 0 to be named", err) //nolint:errorlint // for a text
		}
		return nil
	})
}

// TestFuser: vectors of any lengths, added in any order on each rank, hold their sums, equal on all ranks.
func TestFuser(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(rt, "ranks")
		groups, _ := newRing(t, n, allreduce.Config{Job: 1, Epoch: 1, ChunkBytes: 64})
		if n > 1 && rapid.Bool().Draw(rt, "shared") {
			closeAll(groups)
			groups, _ = newSharing(t, n, allreduce.Config{Job: 1, Epoch: 1})
		}
		defer closeAll(groups)
		lengths := rapid.SliceOfN(rapid.IntRange(0, 90), 1, 40).Draw(rt, "lengths")
		bytes := rapid.IntRange(1, 120).Draw(rt, "floats of a bundle") * 4
		seed := rapid.Uint64().Draw(rt, "seed")
		var in, got [2][][][]float32
		for step := range in {
			for i, length := range lengths {
				in[step] = append(in[step], inputs(n, length, i))
				got[step] = append(got[step], clone(in[step][i]))
			}
		}
		onAll(rt, groups, func(r int, g *allreduce.Group) error {
			f, err := allreduce.NewFuser(g, allreduce.FuserConfig{Type: allreduce.Float32, Op: allreduce.Sum, Bytes: bytes})
			if err != nil {
				return err
			}
			defer f.Close()                                 //nolint:errcheck // returns nil
			order := rand.New(rand.NewPCG(seed, uint64(r))) //nolint:gosec // a test's order
			for step := range got {
				for _, i := range order.Perm(len(lengths)) {
					if err := f.Add(i, allreduce.Of(got[step][i][r])); err != nil {
						return err
					}
				}
				if err := f.Flush(t.Context()); err != nil {
					return err
				}
			}
			return nil
		})
		for step := range got {
			for i := range got[step] {
				checkSums(t, got[step][i], in[step][i])
			}
		}
	})
}

// TestFuserChecksPacking: ranks that pack as many elements of other lengths into a bundle are told so.
func TestFuserChecksPacking(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 2, allreduce.Config{Job: 7, Epoch: 3})
	defer closeAll(groups)
	onAll(t, groups, func(r int, g *allreduce.Group) error {
		f, err := allreduce.NewFuser(g, allreduce.FuserConfig{Type: allreduce.Int32, Op: allreduce.Max})
		if err != nil {
			return err
		}
		defer f.Close() //nolint:errcheck // returns nil
		if err := f.Add(1, allreduce.Of(make([]int32, 3))); err != nil {
			return err
		}
		if err := f.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "none with place 0") {
			t.Errorf("Flush with a gap: %v", err)
		}
		if err := f.Add(1, allreduce.Of(make([]int32, 3))); err == nil || !strings.Contains(err.Error(), "given twice") {
			t.Errorf("a place given twice: %v", err)
		}
		if err := f.Add(0, allreduce.Of(make([]int32, 5+r))); err != nil {
			return err
		}
		if err := f.Add(2, allreduce.Of(make([]int32, 2-r))); err != nil {
			return err
		}
		if err := f.Flush(t.Context()); err == nil || !strings.Contains(err.Error(), "bundle") {
			t.Errorf("rank %d: ranks packed 5, 3, 2 and 6, 3, 1 elements: %v", r, err)
		}
		return nil
	})
}
