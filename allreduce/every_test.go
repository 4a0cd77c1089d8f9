package allreduce_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gangline/gangline/allreduce/internal/point"
)

// countPoints runs a program whole, and returns how many points each rank passes, and which.
func countPoints(t *testing.T, n int) (counts []int64, seen map[point.Point]bool) {
	t.Helper()
	seen = map[point.Point]bool{}
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, n, 1, func(*body) {})
		for r, err := range f.live(t.Context()) {
			if err != nil {
				t.Errorf("rank %d of %d, nobody was harmed: %v", r, n, err)
			}
		}
		f.close()
		for _, b := range f.bodies {
			counts = append(counts, b.count.Load())
			maps.Copy(seen, b.seen)
		}
	})
	return counts, seen
}

// TestLossAtEveryPoint: each rank is killed or hangs at each point of each phase of all that ranks do together. All others are told in time, by name,
// and none sees a partial result as whole. Then they form a ring of those that are left, in which another is harmed, and then again; the last
// ring does its work.
func TestLossAtEveryPoint(t *testing.T) {
	t.Parallel()
	var hit sync.Map
	t.Run("each", func(t *testing.T) {
		for _, n := range []int{2, 3, 4} {
			counts, _ := countPoints(t, n)
			for victim := range n {
				t.Run(fmt.Sprintf("rank %d of %d", victim, n), func(t *testing.T) {
					t.Parallel()
					for at := int64(1); at <= counts[victim]; at += sparsely * int64(max(1, n-2)) {
						loseAndGoOn(t, n, victim, at, &hit)
					}
				})
			}
		}
	})
	inMemory, _ := point.All()
	elsewhere := []point.Point{ // others' word is under way at the first, see TestLossWhileAnotherIsTold; the rest is of shared memory, see package grpclink
		point.SaysBye,
		point.CardShown, point.Staged, point.Met, point.Combined, point.Copied, point.NodesCombined, point.AcrossCombined,
	}
	for _, p := range inMemory {
		if _, there := hit.Load(p); !there && !slices.Contains(elsewhere, p) && sparsely == 1 {
			t.Errorf("no rank was harmed when %v", p)
		}
	}
}

// loseAndGoOn harms a rank at a point; those that are left form rings until nobody is harmed any more.
func loseAndGoOn(t *testing.T, n, victim int, at int64, hit *sync.Map) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // of the bubble: so that a call that never returns fails the test
		defer cancel()
		for formation := 1; ; formation++ {
			f := newFleet(t, n, formation, func(b *body) {
				if b.rank == victim {
					b.at, b.harm = at, harm((at+int64(victim))%2)
				}
			})
			errs := f.live(ctx)
			err := f.after(ctx, errs, hit)
			f.close()
			if err != nil {
				t.Fatalf("%d ranks, formation %d, point %d of rank %d: %v", n, formation, at, victim, err)
			}
			if n == 2 || victim < 0 {
				return
			}
			if n--; formation == 1 {
				victim, at = int(at)%n, 1+(at*37)%200
			} else {
				victim, at = -1, 0
			}
		}
	})
}

// TestLossWhileAnotherIsTold: a rank is lost when it is about to tell the next one of a loss. Who is left is told of one of the two all the same.
func TestLossWhileAnotherIsTold(t *testing.T) {
	t.Parallel()
	for i := range 5 * 4 * 4 {
		first, second, how := i/16, (i/16+1+i/4%4)%5, i%4
		t.Run(fmt.Sprintf("rank %d %v, then rank %d %v", first, harm(how%2), second, harm(how/2)), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // as above
				defer cancel()
				f := newFleet(t, 5, 1, func(b *body) {
					switch b.rank {
					case first:
						b.at, b.harm = int64(1+i*7), harm(how%2)
					case second:
						b.at, b.on, b.harm = atKind, point.SaysBye, harm(how/2)
					}
				})
				err := f.after(ctx, f.live(ctx), new(sync.Map))
				f.close()
				if err != nil {
					t.Error(err)
				}
			})
		})
	}
}
