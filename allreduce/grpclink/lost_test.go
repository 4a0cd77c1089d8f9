package grpclink_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// joinBehindRelays joins n ranks; both links of one of them pass through relays.
func joinBehindRelays(t *testing.T, n, lost int, path grpclink.Path) ([]*allreduce.Group, []*relay) {
	t.Helper()
	ls, peers := listeners(t, n)
	before, after := (lost+n-1)%n, (lost+1)%n
	relays := []*relay{newRelay(t, peers[lost]), newRelay(t, peers[after])}
	groups := make([]*allreduce.Group, n)
	var all errgroup.Group
	for r := range groups {
		own := append([]string(nil), peers...)
		if r == before {
			own[lost] = relays[0].addr()
		}
		if r == lost {
			own[after] = relays[1].addr()
		}
		all.Go(func() error {
			cfg := config(r, own, ls[r])
			cfg.Path = path
			if r == lost {
				cfg.DetectTimeout = 4 * detect // it must not be the first to blame its neighbours
			}
			g, err := grpclink.Join(t.Context(), cfg)
			groups[r] = g
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatalf("Join of %d ranks: %v", n, err)
	}
	return groups, relays
}

// loseInCall makes all ranks sum again and again, does harm once they are at it,
// and checks that all others name the lost rank in time.
func loseInCall(t *testing.T, n int, groups []*allreduce.Group, lost int, harm func()) {
	t.Helper()
	underWay := make(chan struct{}, n)
	type outcome struct {
		rank int
		err  error
		at   time.Time
	}
	outcomes := make(chan outcome, n)
	for r, g := range groups {
		go func() {
			data, free := mapped(1 << 20)
			for call := 0; ; call++ {
				if err := g.AllReduce(t.Context(), allreduce.Of(data), allreduce.Sum); err != nil {
					free() // the caller's again, though the call has failed
					outcomes <- outcome{r, err, time.Now()}
					return
				}
				if call == 2 {
					underWay <- struct{}{}
				}
			}
		}()
	}
	for range n {
		select {
		case <-underWay:
		case o := <-outcomes:
			t.Fatalf("rank %d before any harm was done: %v", o.rank, o.err)
		}
	}
	start := time.Now()
	harm()
	for range n {
		o := <-outcomes
		if o.rank == lost {
			continue
		}
		checkLost(t, o.rank, lost, o.err, start, time.Hour)
		if took := o.at.Sub(start); took > detect+bound {
			t.Errorf("rank %d learnt it after %v, limit %v", o.rank, took, detect+bound)
		}
		if again := groups[o.rank].Barrier(t.Context()); !errors.Is(again, o.err) {
			t.Errorf("rank %d: later call says %v, the first said %v", o.rank, again, o.err)
		}
	}
}

// lossCases are the paths that a relay can stand in.
var lossCases = []struct {
	path  grpclink.Path
	ranks int
}{{grpclink.PathGRPC, 2}, {grpclink.PathGRPC, 4}, {grpclink.PathTCP, 2}, {grpclink.PathTCP, 4}}

// A rank whose connections break in the middle of a call, as when it is killed.
func TestKilledRankIsNamedByAll(t *testing.T) {
	t.Parallel()
	for _, c := range lossCases {
		n := c.ranks
		t.Run(fmt.Sprintf("%s/ranks=%d", c.path, n), func(t *testing.T) {
			t.Parallel()
			groups, relays := joinBehindRelays(t, n, 1, c.path)
			defer closeAll(groups)
			loseInCall(t, n, groups, 1, func() {
				relays[0].freeze() // a killed rank cannot say whom it misses while its second connection still stands
				relays[1].freeze()
				relays[0].cut()
				relays[1].cut()
			})
		})
	}
}

// A rank that stops to read and write while its connections stay open.
func TestHungRankIsNamedByAll(t *testing.T) {
	t.Parallel()
	for _, c := range lossCases {
		n := c.ranks
		t.Run(fmt.Sprintf("%s/ranks=%d", c.path, n), func(t *testing.T) {
			t.Parallel()
			groups, relays := joinBehindRelays(t, n, 1, c.path)
			defer relays[0].cut()
			defer relays[1].cut()
			defer closeAll(groups)
			loseInCall(t, n, groups, 1, func() {
				relays[0].freeze()
				relays[1].freeze()
			})
		})
	}
}

// Ranks that never come are named by all that did, and Join does not wait longer.
func TestJoinNamesAbsentRank(t *testing.T) {
	t.Parallel()
	const n, absent = 4, 2
	ls, peers := listeners(t, n)
	_ = ls[absent].Close()
	start := time.Now()
	var all errgroup.Group
	for r := range n {
		if r == absent {
			continue
		}
		all.Go(func() error {
			cfg := config(r, peers, ls[r])
			cfg.JoinTimeout = time.Second
			_, err := grpclink.Join(t.Context(), cfg)
			checkLost(t, r, absent, err, start, time.Second+bound)
			if err != nil && !strings.Contains(err.Error(), "did not connect") {
				t.Errorf("rank %d: %v, want it to say that the rank did not connect", r, err)
			}
			return nil
		})
	}
	_ = all.Wait()
}

// Join obeys its context too.
func TestJoinEndsWithContext(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 2)
	_ = ls[1].Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := grpclink.Join(ctx, config(0, peers, ls[0]))
	checkLost(t, 0, 1, err, start, bound)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Join: %v, want the context's deadline as cause", err)
	}
}

// A worker of an older epoch that dials a ring of a newer one is told so at
// once, and does the ring no harm.
func TestLateEpochIsRefused(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 2)
	groups := make([]*allreduce.Group, 2)
	var all errgroup.Group
	for r := range groups {
		all.Go(func() error {
			cfg := config(r, peers, ls[r])
			cfg.Formation = 2
			g, err := grpclink.Join(t.Context(), cfg)
			groups[r] = g
			return err
		})
	}
	if err := all.Wait(); err != nil {
		t.Fatal(err)
	}
	defer closeAll(groups)

	for what, change := range map[string]func(*grpclink.Config){
		"epoch 2":     func(c *grpclink.Config) { c.Epoch, c.Formation = epoch-1, 9 },
		"formation 1": func(c *grpclink.Config) { c.Formation = 1 },
	} {
		again, where := listeners(t, 1)
		late := config(1, []string{peers[0], where[0]}, again[0])
		change(&late)
		start := time.Now()
		_, err := grpclink.Join(t.Context(), late)
		var fenced *allreduce.FencedError
		if !errors.As(err, &fenced) || !fenced.Late() || !strings.Contains(err.Error(), what) {
			t.Errorf("Join of %s: %v, want a FencedError that names it", what, err)
		}
		if took := time.Since(start); took > bound {
			t.Errorf("Join of %s took %v, want it at once", what, took)
		}
	}
	for r, g := range groups {
		all.Go(func() error { return sumOnce(t.Context(), g, r, 2, 1000) })
	}
	if err := all.Wait(); err != nil {
		t.Errorf("the ring of epoch %d after the refusal: %v", epoch, err)
	}
}

// A ring whose members disagree says how.
func TestDifferentChunksAreRefused(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 2)
	var all errgroup.Group
	for r := range 2 {
		all.Go(func() error {
			cfg := config(r, peers, ls[r])
			cfg.ChunkBytes = 1024 * (r + 1)
			cfg.JoinTimeout = time.Second
			_, err := grpclink.Join(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), "must be equal") {
				t.Errorf("Join of rank %d: %v, want both chunk sizes named", r, err)
			}
			return nil
		})
	}
	_ = all.Wait()
}

func TestJoinChecksConfig(t *testing.T) {
	t.Parallel()
	if _, err := grpclink.Join(t.Context(), config(0, []string{"a:1", "b:2"}, nil)); err == nil ||
		!strings.Contains(err.Error(), "no listener") {
		t.Errorf("Join without a listener: %v", err)
	}
	if _, err := grpclink.Join(t.Context(), config(2, []string{"a:1", "b:2"}, nil)); err == nil ||
		!strings.Contains(err.Error(), "rank is 2") {
		t.Errorf("Join with a rank outside the world: %v", err)
	}
}

// TestLinkToHungRankEnds: a rank that hangs has taken a connection and answers nothing on it. Who opens a link to it for a short vector is not kept.
func TestLinkToHungRankEnds(t *testing.T) {
	t.Parallel()
	silent, where := listeners(t, 1)
	hung := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		<-s.Context().Done()
		return nil
	}))
	go hung.Serve(silent[0]) //nolint:errcheck // ends with Stop
	defer hung.Stop()
	groups := joinAll(t, 4, func(c *grpclink.Config) {
		c.Path = grpclink.PathTCP
		if c.Rank == 0 { // whose ring's links lead to ranks 1 and 3
			c.Peers = []string{c.Peers[0], c.Peers[1], where[0], c.Peers[3]}
		}
	})
	defer closeAll(groups)
	start := time.Now()
	var all errgroup.Group
	for r, g := range groups {
		all.Go(func() error {
			v := []float32{1}
			if err := g.AllReduce(t.Context(), allreduce.Of(v), allreduce.Sum); r%2 == 0 || err != nil { // ranks 1 and 3 need nothing that rank 0 sends to rank 2
				checkLost(t, r, 2, err, start, time.Hour)
			} else if v[0] != 4 {
				t.Errorf("rank %d: the sum is %v", r, v[0])
			}
			return nil
		})
	}
	_ = all.Wait()
}
