package allreduce_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
	"github.com/gangline/gangline/allreduce/kernel"
	"github.com/gangline/gangline/allreduce/memlink"
)

// connect gives groups links in memory between all ranks. cut returns the ends of all links that a rank has opened or accepted.
func connect(groups []*allreduce.Group) {
	for r, g := range groups {
		g.Connect(func(_ context.Context, rank int, lane allreduce.Lane) (allreduce.Link, error) {
			mine, theirs := memlink.Pair()
			groups[rank].Accept(r, lane, theirs)
			return mine, nil
		})
	}
}

// doubled is what recursive doubling comes to, in the documented order.
func doubled(in [][]byte, typ allreduce.Type, op allreduce.Op) []byte {
	plain := kernel.Op(op)
	if op == allreduce.Mean {
		plain = kernel.Sum
	}
	p := 1
	for 2*p <= len(in) {
		p *= 2
	}
	now := make([][]byte, p)
	for r := range now {
		now[r] = slices.Clone(in[r])
		if r+p < len(in) {
			kernel.Reduce(plain, typ, now[r], in[r+p])
		}
	}
	for bit := 1; bit < p; bit *= 2 {
		for r := 0; r < p; r++ {
			if r&bit == 0 {
				kernel.Reduce(plain, typ, now[r], now[r|bit])
				copy(now[r|bit], now[r])
			}
		}
	}
	if op == allreduce.Mean {
		kernel.Divide(typ, now[0], len(in))
	}
	return now[0]
}

// TestRecursiveDoubling: short vectors of all types and operations, over any number of ranks, have the documented bits on all of them; longer
// ones take the ring, and the two follow each other in any order.
func TestRecursiveDoubling(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 9).Draw(rt, "ranks")
		groups, _ := newRing(t, n, allreduce.Config{Job: 1, Epoch: 1, ChunkBytes: 1024, Window: rapid.IntRange(2, 8).Draw(rt, "window"), SmallBytes: 800})
		defer closeAll(groups)
		connect(groups)
		for range rapid.IntRange(1, 5).Draw(rt, "calls") {
			typ, op := rapid.SampledFrom(allTypes).Draw(rt, "type"), rapid.SampledFrom(allOps).Draw(rt, "operation")
			in := drawVectors(rt, n, typ)
			want := combined(in, typ, op)
			if len(in[0]) <= 800 {
				want = doubled(in, typ, op)
			}
			got := make([][]byte, n)
			for r := range got {
				got[r] = slices.Clone(in[r])
			}
			onAll(rt, groups, func(r int, g *allreduce.Group) error {
				return g.AllReduce(t.Context(), allreduce.Bits(typ, got[r]), op)
			})
			for r := range got {
				if !bytes.Equal(got[r], want) {
					rt.Fatalf("rank %d of %d, %v of %d bytes of %v:\n got %x\nwant %x", r, n, op, len(want), typ, got[r], want)
				}
			}
		}
	})
}

// TestSendAndRecv: messages between any two ranks come in order and whole, while collectives go on; the sender's buffer is its own again at once.
func TestSendAndRecv(t *testing.T) {
	t.Parallel()
	for name, groups := range map[string][]*allreduce.Group{
		"memory": func() []*allreduce.Group {
			groups, _ := newRing(t, 4, allreduce.Config{ChunkBytes: 256, Window: 4})
			connect(groups)
			return groups
		}(),
		"tcp": joinLoopback(grpclink.PathTCP)(t, 4), "grpc": joinLoopback(grpclink.PathGRPC)(t, 4),
	} {
		onAll(t, groups, func(r int, g *allreduce.Group) error {
			var all errgroup.Group
			all.Go(func() error {
				for range 20 {
					if err := g.AllReduce(t.Context(), allreduce.Of(make([]float32, 3)), allreduce.Sum); err != nil {
						return err
					}
				}
				return nil
			})
			for peer := range 4 {
				if peer == r {
					continue
				}
				all.Go(func() error {
					v := make([]int64, 500)
					for message := range 10 {
						for i := range v[:message*50] {
							v[i] = int64(1000*message + 10*r + peer)
						}
						if err := g.Send(t.Context(), allreduce.Of(v[:message*50]), peer); err != nil {
							return err
						}
					}
					return nil
				})
				all.Go(func() error {
					v := make([]int64, 500)
					for message := range 10 {
						if err := g.Recv(t.Context(), allreduce.Of(v[:message*50]), peer); err != nil {
							return err
						}
						for i := range v[:message*50] {
							if want := int64(1000*message + 10*peer + r); v[i] != want {
								return fmt.Errorf("message %d of rank %d, element %d is %d, want %d", message, peer, i, v[i], want)
							}
						}
					}
					return nil
				})
			}
			return all.Wait()
		})
		closeAll(groups)
		t.Log(name)
	}
}

// TestMessagesThatCannotBe are refused, and ranks that do not expect the same are named.
func TestMessagesThatCannotBe(t *testing.T) {
	t.Parallel()
	groups, _ := newRing(t, 3, allreduce.Config{Job: 7, Epoch: 3})
	defer closeAll(groups)
	v := allreduce.Of(make([]float32, 4))
	if err := groups[0].Send(t.Context(), v, 2); err == nil || !strings.Contains(err.Error(), "neighbours only") {
		t.Errorf("Send without a mesh: %v", err)
	}
	connect(groups)
	for _, to := range []int{-1, 0, 3} {
		if err := groups[0].Send(t.Context(), v, to); err == nil || !strings.Contains(err.Error(), "ranks are 0..2") {
			t.Errorf("Send to rank %d: %v", to, err)
		}
	}
	if err := groups[0].Send(t.Context(), v, 2); err != nil {
		t.Fatal(err)
	}
	err := groups[2].Recv(t.Context(), allreduce.Of(make([]float32, 5)), 0)
	var mismatch *allreduce.MismatchError
	if !errors.As(err, &mismatch) || !strings.Contains(err.Error(), "Send of 4 elements") || !strings.Contains(err.Error(), "Send of 5 elements") {
		t.Errorf("Recv of 5 elements of 4: %v", err)
	}
}

// TestLossWhileRanksAreNoNeighbours: who waits for a rank beyond its neighbours learns from the ring that one is lost.
func TestLossWhileRanksAreNoNeighbours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		groups, ends := newRing(t, 6, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect})
		defer closeAll(groups)
		connect(groups)
		barrierAll(t, groups)
		ends[4].Next.Freeze()
		ends[4].Prev.Freeze()
		onOthers(groups, 4, func(r int, g *allreduce.Group) {
			v := allreduce.Of(make([]float32, 10))
			err := g.AllReduce(t.Context(), v, allreduce.Sum)
			if r == 1 {
				err = g.Recv(t.Context(), v, 4)
			}
			var lost *allreduce.RankLostError
			if !errors.As(err, &lost) || lost.Rank != 4 {
				t.Errorf("rank %d: %v, want that rank 4 is lost", r, err)
			}
		})
	})
}

// TestLeavingIsNoticedBeyondNeighbours: a rank that left before a call is missed by all, also by those who would have heard from it on a link that it
// never opened.
func TestLeavingIsNoticedBeyondNeighbours(t *testing.T) {
	t.Parallel()
	for _, leaves := range []int{5, 2} {
		synctest.Test(t, func(t *testing.T) {
			groups, _ := newRing(t, 6, allreduce.Config{Job: 7, Epoch: 3, DetectTimeout: detect})
			defer closeAll(groups)
			connect(groups)
			v := func() allreduce.Vector { return allreduce.Of(make([]float32, 10)) }
			onAll(t, groups, func(_ int, g *allreduce.Group) error { return g.Barrier(t.Context()) })
			groups[leaves].Leave()
			onOthers(groups, leaves, func(r int, g *allreduce.Group) {
				err := g.AllReduce(t.Context(), v(), allreduce.Sum)
				var lost *allreduce.RankLostError
				if !errors.As(err, &lost) || lost.Rank != leaves || !strings.Contains(err.Error(), allreduce.ErrLeft.Error()) {
					t.Errorf("rank %d: %v, want that rank %d left", r, err, leaves)
				}
			})
		})
	}
}

// TestMessageFromARankThatLeft: who waits for a message is told that its sender has gone, by a link that is opened for that.
func TestMessageFromARankThatLeft(t *testing.T) {
	t.Parallel()
	groups := joinLoopback(grpclink.PathTCP)(t, 4)
	defer closeAll(groups)
	answer := make(chan error, 1)
	go func() { answer <- groups[0].Recv(t.Context(), allreduce.Of(make([]float32, 10)), 2) }()
	if err := groups[0].Send(t.Context(), allreduce.Of(make([]float32, 1)), 2); err != nil { // the links are there
		t.Fatal(err)
	}
	_ = groups[2].Close()
	var lost *allreduce.RankLostError
	if err := <-answer; !errors.As(err, &lost) || lost.Rank != 2 {
		t.Errorf("Recv: %v, want that rank 2 is lost", err)
	}
}
