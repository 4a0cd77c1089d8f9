package allreduce_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/memlink"
)

const detect = 2 * time.Second

// bound is how much later than the detect timeout an error may come.
const bound = detect / 2

// checkLost fails unless err names the rank, in time.
func checkLost(t *testing.T, rank, lostRank int, err error, since time.Time, limit time.Duration) {
	t.Helper()
	var lost *allreduce.RankLostError
	if !errors.As(err, &lost) || lost.Rank != lostRank || lost.Epoch != 3 || lost.Job != 7 {
		t.Errorf("rank %d: error %v, want that rank %d of job 7 epoch 3 is lost", rank, err, lostRank)
	}
	if took := time.Since(since); took > limit {
		t.Errorf("rank %d: error after %v, limit %v", rank, took, limit)
	}
}

// onOthers runs fn at the same time on every rank but one.
func onOthers(groups []*allreduce.Group, not int, fn func(rank int, g *allreduce.Group)) {
	done := make(chan struct{})
	for r, g := range groups {
		go func() {
			if r != not {
				fn(r, g)
			}
			done <- struct{}{}
		}()
	}
	for range groups {
		<-done
	}
}

// A rank that stops, as under SIGSTOP, in the middle of a series of calls.
func TestFrozenRankIsNamedByAll(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2, 3, 5, 8} {
		t.Run(fmt.Sprintf("ranks=%d", n), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				groups, ends := newRing(t, n, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect, ChunkBytes: 256})
				defer closeAll(groups)
				data := inputs(n, 4000, 1)
				for r, err := range reduceAll(t.Context(), groups, data) {
					if err != nil {
						t.Fatalf("AllReduce on rank %d: %v", r, err)
					}
				}
				frozen := n / 2
				ends[frozen].Next.Freeze()
				ends[frozen].Prev.Freeze()
				start := time.Now()
				onOthers(groups, frozen, func(r int, g *allreduce.Group) {
					err := g.AllReduce(t.Context(), allreduce.Of(data[r]), allreduce.Sum)
					checkLost(t, r, frozen, err, start, detect+bound)
					if again := g.Barrier(t.Context()); !errors.Is(again, err) {
						t.Errorf("rank %d: second call says %v, the first said %v", r, again, err)
					}
				})
			})
		})
	}
}

// A rank that lives but computes for long is waited for, and not lost.
func TestSlowRankIsNotLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups, _ := newRing(t, 3, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect, ChunkBytes: 256})
		defer closeAll(groups)
		in := inputs(3, 9999, 2)
		data := clone(in)
		onOthers(groups, -1, func(r int, g *allreduce.Group) {
			if r == 1 {
				time.Sleep(100 * detect) // virtual: computing
			}
			if err := g.AllReduce(t.Context(), allreduce.Of(data[r]), allreduce.Sum); err != nil {
				t.Errorf("rank %d: %v", r, err)
			}
		})
		checkSums(t, data, in)
		time.Sleep(100 * detect) // idle
		barrierAll(t, groups)
	})
}

// A neighbour that sends but never reads is found out too. It has a longer
// timeout of its own, so that it does not blame others for what it does not hear.
func TestDeafRankIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ends, groups := memlink.Ring(3), make([]*allreduce.Group, 3)
		for r := range groups {
			cfg := allreduce.Config{Job: 7, Epoch: 3, Rank: r, WorldSize: 3, DetectTimeout: detect}
			if r == 1 {
				cfg.DetectTimeout = 3 * detect
			}
			g, err := allreduce.New(cfg, ends[r].Next, ends[r].Prev)
			if err != nil {
				t.Fatal(err)
			}
			groups[r] = g
		}
		defer closeAll(groups)
		barrierAll(t, groups)
		ends[1].Prev.Deafen()
		start := time.Now()
		onOthers(groups, 1, func(r int, g *allreduce.Group) {
			checkLost(t, r, 1, g.AllReduce(t.Context(), allreduce.Of(make([]float32, 10)), allreduce.Sum), start, 2*detect+bound)
		})
	})
}

// A connection that breaks is found out at once, also between calls.
func TestBrokenLinkIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups, ends := newRing(t, 5, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect})
		defer closeAll(groups)
		barrierAll(t, groups)
		start := time.Now()
		for _, l := range []interface{ Close() error }{ends[2].Next, ends[2].Prev} {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		onOthers(groups, 2, func(r int, g *allreduce.Group) {
			checkLost(t, r, 2, g.AllReduce(t.Context(), allreduce.Of(make([]float32, 10)), allreduce.Sum), start, 0)
		})
	})
}

// A rank that never says a word is named after the join timeout.
func TestAbsentRankIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect, JoinTimeout: 30 * time.Second}
		groups, ends := newRing(t, 5, cfg, 3)
		defer closeAll(groups)
		defer ends[3].Next.Close() //nolint:errcheck // never fails
		defer ends[3].Prev.Close() //nolint:errcheck // never fails
		start := time.Now()
		onOthers(groups, 3, func(r int, g *allreduce.Group) {
			err := g.Barrier(t.Context())
			checkLost(t, r, 3, err, start, 30*time.Second+bound)
		})
	})
}

// A rank whose own context ends takes the ring with it, and says so everywhere.
func TestCancelledCallNamesItsRank(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups, _ := newRing(t, 4, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect})
		defer closeAll(groups)
		start := time.Now()
		onOthers(groups, 3, func(r int, g *allreduce.Group) { // rank 3 computes
			ctx, cancel := t.Context(), func() {}
			if r == 1 {
				ctx, cancel = context.WithTimeout(ctx, time.Second)
			}
			defer cancel()
			err := g.AllReduce(ctx, allreduce.Of(make([]float32, 10)), allreduce.Sum)
			checkLost(t, r, 1, err, start, time.Second)
			if r == 1 && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("rank 1: %v, want its own deadline as cause", err)
			}
		})
	})
}

// A context that ended before the call costs nothing.
func TestDeadContextLeavesGroupWhole(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 2, allreduce.Config{})
	defer closeAll(groups)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := groups[0].Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Barrier with a dead context: %v, want context.Canceled", err)
	}
	barrierAll(t, groups)
}

// A rank that leaves in good order does no harm to calls it took part in.
func TestLeaveInGoodOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 4
		groups, _ := newRing(t, n, allreduce.Config{Job: 7, Epoch: 3, ChunkBytes: 64})
		defer closeAll(groups)
		in := inputs(n, 3000, 3)
		data := clone(in)
		start := time.Now()
		onOthers(groups, -1, func(r int, g *allreduce.Group) {
			if err := g.AllReduce(t.Context(), allreduce.Of(data[r]), allreduce.Sum); err != nil {
				t.Errorf("rank %d: %v", r, err)
			}
			if r == 2 {
				_ = g.Close()
				if err := g.Barrier(t.Context()); !errors.Is(err, allreduce.ErrClosed) {
					t.Errorf("rank 2 after Close: %v, want ErrClosed", err)
				}
				return
			}
			err := g.Barrier(t.Context())
			checkLost(t, r, 2, err, start, 0)
			if !strings.Contains(err.Error(), allreduce.ErrLeft.Error()) {
				t.Errorf("rank %d: %v, want it to say that rank 2 left", r, err)
			}
		})
		checkSums(t, data, in)
	})
}

// A frame of another epoch breaks the ring and is named.
func TestFrameOfOtherEpochIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups, ends := newRing(t, 3, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect})
		defer closeAll(groups)
		barrierAll(t, groups)
		stale := &allreduce.Frame{Header: allreduce.Header{Kind: allreduce.KindData, Job: 7, Epoch: 2, Rank: 0}}
		if err := ends[0].Next.Send(stale); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		err := groups[1].Barrier(t.Context())
		var fenced *allreduce.FencedError
		if !errors.As(err, &fenced) || fenced.OtherEpoch != 2 || fenced.Epoch != 3 || fenced.OtherRank != 0 {
			t.Errorf("Barrier: %v, want a FencedError naming rank 0 and epoch 2", err)
		}
	})
}
