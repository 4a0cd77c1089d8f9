package allreduce_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/memlink"
)

// TestPartitionOfOneLink: what two ranks send each other on one link no longer comes, while all ranks live and all other links work: of neighbours, of ranks that
// exchange short vectors, and of those that exchange messages. All are told in time, and of one of the two; in the next ring all are there.
func TestPartitionOfOneLink(t *testing.T) {
	t.Parallel()
	const n = 5
	for name, c := range map[string]struct {
		a, b  int
		ring  bool
		calls func(ctx context.Context, g *allreduce.Group, rank int) error
	}{
		"neighbours": {1, 2, true, func(ctx context.Context, g *allreduce.Group, rank int) error { return parts[1].run(ctx, g, rank, n) }},
		"short vectors": {1, 3, false, func(ctx context.Context, g *allreduce.Group, rank int) error {
			return whole(10, allreduce.WireExact)(ctx, g, rank, n)
		}},
		"messages": {1, 2, false, func(ctx context.Context, g *allreduce.Group, rank int) error {
			v := make([]int32, 300) // more than a window
			switch rank {
			case 1:
				return g.Send(ctx, allreduce.Of(v), 2)
			case 2:
				return g.Recv(ctx, allreduce.Of(v), 1)
			}
			return g.Barrier(ctx) // which never comes about
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // of the bubble
				defer cancel()
				f := newFleet(t, n, 1, func(*body) {})
				for _, err := range f.live(ctx) {
					if err != nil {
						t.Fatal(err)
					}
				}
				for _, l := range f.between(c.a, c.b, c.ring) {
					l.Freeze()
				}
				start := time.Now()
				onOthers(f.groups, -1, func(r int, g *allreduce.Group) {
					var err error
					for err == nil {
						err = c.calls(ctx, g, r)
					}
					var lost *allreduce.RankLostError
					if took := time.Since(start); !errors.As(err, &lost) || !slices.Contains([]int{c.a, c.b}, lost.Rank) || took > detect+bound {
						t.Errorf("rank %d, after %v: %v, want that rank %d or %d is lost", r, took, err, c.a, c.b)
					}
				})
				f.close()
				again := newFleet(t, n, 2, func(*body) {})
				for r, err := range again.live(ctx) {
					if err != nil {
						t.Errorf("rank %d in the next ring: %v", r, err)
					}
				}
				again.close()
			})
		})
	}
}

// between returns the ends of the links between two ranks: the ring's, or the others.
func (f *fleet) between(a, b int, ring bool) (links []*memlink.Link) {
	for i, l := range f.bodies[a].links {
		if slices.ContainsFunc(f.bodies[b].links, l.Faces) && (i < 2) == ring {
			links = append(links, l)
		}
	}
	for i, l := range f.bodies[b].links {
		if slices.ContainsFunc(f.bodies[a].links, l.Faces) && (i < 2) == ring {
			links = append(links, l)
		}
	}
	return links
}

// TestIdleLinksAreNoLoss: nothing is sent for long on links between ranks, or one waits for long for what another will send. None of them is lost.
func TestIdleLinksAreNoLoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 3
		f := newFleet(t, n, 1, func(*body) {})
		defer f.close()
		onOthers(f.groups, -1, func(r int, g *allreduce.Group) {
			for i := range 4 {
				for _, p := range parts {
					if r == i%n {
						time.Sleep(20 * detect) // of the bubble: it computes
					}
					if err := p.run(t.Context(), g, r, n); err != nil {
						t.Errorf("rank %d, %s: %v", r, p.name, fmt.Sprint(err))
					}
				}
			}
		})
	})
}
