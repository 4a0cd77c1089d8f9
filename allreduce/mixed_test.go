package allreduce_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gangline/gangline/allreduce"
)

// TestDifferentCallsOnDifferentPaths: a rank makes another call than the others, or gives another length, so that it goes by another way (the ring, links between
// ranks). Nobody waits for what will never come: all are told what two of them did.
func TestDifferentCallsOnDifferentPaths(t *testing.T) {
	t.Parallel()
	calls := []part{
		parts[0], parts[1], parts[2], parts[3], parts[4], parts[5], parts[6],
		{"a vector of other length", whole(140, allreduce.WireExact)},
		{"a short vector of other length", whole(9, allreduce.WireExact)},
	}
	for i, one := range calls {
		for k, other := range calls {
			if i == k {
				continue
			}
			t.Run(one.name+" and "+other.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of the bubble
					defer cancel()
					const n = 3
					f := newFleet(t, n, 1, func(*body) {})
					defer f.close()
					start := time.Now()
					onOthers(f.groups, -1, func(r int, g *allreduce.Group) {
						p := other
						if r == i%n {
							p = one
						}
						err := p.run(ctx, g, r, n)
						if err == nil { // a root of a broadcast may be done before the others have called
							err = g.Barrier(ctx)
						}
						var lost *allreduce.RankLostError
						if took := time.Since(start); !errors.As(err, &lost) || errors.Is(err, errWrong) || took > detect+bound {
							t.Errorf("rank %d, after %v: %v, want that the calls differ", r, took, err)
						}
						if err != nil && !strings.Contains(err.Error(), "all ranks must make the same calls") {
							t.Errorf("rank %d: %v, want that the calls differ", r, err)
						}
					})
				})
			})
		}
	}
}

// TestSharedMemoryAndRing: some ranks meet in shared memory, one makes a call that goes round the ring.
func TestSharedMemoryAndRing(t *testing.T) {
	t.Parallel()
	for _, round := range []part{parts[2], parts[3], parts[4]} {
		t.Run(round.name, func(t *testing.T) {
			t.Parallel()
			const n = 3
			groups, _ := newSharing(t, n, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect})
			defer closeAll(groups)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			onOthers(groups, -1, func(r int, g *allreduce.Group) {
				p := part{run: whole(100, allreduce.WireExact)}
				if r == 1 {
					p = round
				}
				err := p.run(ctx, g, r, n)
				if err == nil { // the root of a broadcast
					err = g.Barrier(ctx)
				}
				if err == nil || !strings.Contains(err.Error(), "all ranks must make the same calls") {
					t.Errorf("rank %d: %v, want that the calls differ", r, err)
				}
			})
		})
	}
}

// TestRootIsCallsAhead: the root of a broadcast is in its next call before the others call at all, and they call something else, elsewhere.
func TestRootIsCallsAhead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of the bubble
		defer cancel()
		const n = 3
		f := newFleet(t, n, 1, func(*body) {})
		defer f.close()
		start := time.Now()
		onOthers(f.groups, -1, func(r int, g *allreduce.Group) {
			var err error
			if r == 0 {
				if err = g.Broadcast(ctx, allreduce.Of(make([]float32, 3)), 0); err == nil {
					err = g.Barrier(ctx)
				}
			} else {
				time.Sleep(detect / 4) // until the root is there
				err = whole(9, allreduce.WireExact)(ctx, g, r, n)
			}
			if err == nil || !strings.Contains(err.Error(), "all ranks must make the same calls") || time.Since(start) > detect+bound {
				t.Errorf("rank %d, after %v: %v, want that the calls differ", r, time.Since(start), err)
			}
		})
	})
}
