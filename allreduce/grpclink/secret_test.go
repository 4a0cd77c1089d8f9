package grpclink_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink"
)

// secret is that of all rings of tests.
var secret = []byte("0123456789abcdef0123456789abcdef")

const unknown = "does not know the group's secret"

// joinBoth joins a ring of two and returns it, or the error of the first that failed.
func joinBoth(ctx context.Context, ls []net.Listener, peers []string, change func(c *grpclink.Config)) ([]*allreduce.Group, error) {
	groups := make([]*allreduce.Group, 2)
	var all errgroup.Group
	for r := range groups {
		all.Go(func() (err error) {
			cfg := config(r, peers, ls[r])
			change(&cfg)
			groups[r], err = grpclink.Join(ctx, cfg)
			return err
		})
	}
	return groups, all.Wait()
}

// TestStrangerCannotTakeAPlace: who lacks the secret is let in neither as the previous rank nor as the next one, by no path, and keeps the
// rank whose place it wanted out for no longer than it takes to refuse it.
func TestStrangerCannotTakeAPlace(t *testing.T) {
	t.Parallel()
	for _, path := range []grpclink.Path{grpclink.PathGRPC, grpclink.PathTCP} {
		t.Run(string(path), func(t *testing.T) {
			t.Parallel()
			ls, peers := listeners(t, 3)
			stranger := config(1, []string{peers[0], peers[2]}, ls[2])
			stranger.Path, stranger.Secret, stranger.JoinTimeout = path, []byte("another secret, as long"), 2*time.Second
			var outside, inside error
			var all errgroup.Group
			all.Go(func() error { // rank 0 waits for rank 1, and the stranger comes
				cfg := config(0, []string{peers[0], peers[2]}, ls[0])
				cfg.Path, cfg.JoinTimeout = path, 2*time.Second
				_, inside = grpclink.Join(t.Context(), cfg)
				return nil
			})
			all.Go(func() error {
				_, outside = grpclink.Join(t.Context(), stranger)
				return nil
			})
			_ = all.Wait()
			for who, err := range map[string]error{"the stranger": outside, "rank 0": inside} {
				if err == nil || !strings.Contains(err.Error(), unknown) {
					t.Errorf("%s: %v, want that the other %s", who, err, unknown)
				}
			}
		})
	}
}

// TestStrangerDoesNotKeepARankOut: a ring forms while a stranger dials one of its ranks again and again.
func TestStrangerDoesNotKeepARankOut(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	var knocking sync.WaitGroup
	knocking.Go(func() {
		cfg := config(1, []string{peers[0], peers[2]}, ls[2])
		cfg.Secret = []byte("another secret, as long")
		if g, err := grpclink.Join(ctx, cfg); err == nil {
			t.Error("the stranger has joined")
			_ = g.Close()
		}
	})
	defer knocking.Wait()
	defer cancel()
	groups, err := joinBoth(t.Context(), ls, peers[:2], func(*grpclink.Config) {})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(groups)
}

// recorder passes one connection on and keeps what the client says.
type recorder struct {
	*relay
	mu   sync.Mutex
	said bytes.Buffer
}

func newRecorder(t *testing.T, target string) *recorder {
	t.Helper()
	ls, _ := listeners(t, 1)
	r := &recorder{relay: &relay{listener: ls[0], target: target, hold: make(chan struct{}), ended: make(chan struct{})}}
	r.heard = func(b []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said.Write(b)
	}
	r.done.Go(r.accept)
	return r
}

// TestReplayIsRefused: what a rank once said to join does not let anybody else in, though the ring is of the same job, epoch and secret.
func TestReplayIsRefused(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 3)
	again, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecorder(t, peers[1])
	grpcOnly := func(c *grpclink.Config) { c.Path = grpclink.PathGRPC }
	groups, err := joinBoth(t.Context(), ls, peers[:2], func(c *grpclink.Config) {
		grpcOnly(c)
		if c.Rank == 0 {
			c.Peers = []string{peers[0], rec.addr()}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(groups)
	rec.cut()

	// The same two ranks come again; rank 1 is there first, and meets the record.
	second := []net.Listener{ls[2], again}
	places := []string{peers[2], again.Addr().String()}
	var rank1 errgroup.Group
	var g1 *allreduce.Group
	rank1.Go(func() (err error) {
		cfg := config(1, places, second[1])
		grpcOnly(&cfg)
		g1, err = grpclink.Join(t.Context(), cfg)
		return err
	})
	conn, err := net.Dial("tcp", places[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // a test's connection
	if _, err := conn.Write(rec.said.Bytes()); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var answer []byte
	for buf := make([]byte, 4096); !bytes.Contains(answer, []byte(unknown)); {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("the record was answered by %q and %v, want that it %s", answer, err, unknown)
		}
		answer = append(answer, buf[:n]...)
	}
	cfg := config(0, places, second[0])
	grpcOnly(&cfg)
	g0, err := grpclink.Join(t.Context(), cfg)
	if err = errors.Join(err, rank1.Wait()); err != nil {
		t.Fatalf("the true rank 0 after the replay: %v", err)
	}
	closeAll([]*allreduce.Group{g0, g1})
}

// TestSecretOfOldEpoch: a rank that comes with the right epoch and the secret of the one before is no member.
func TestSecretOfOldEpoch(t *testing.T) {
	t.Parallel()
	ls, peers := listeners(t, 2)
	_, err := joinBoth(t.Context(), ls, peers, func(c *grpclink.Config) {
		c.JoinTimeout = time.Second
		if c.Rank == 1 {
			c.Secret = []byte("the secret of epoch 2 of the job")
		}
	})
	if err == nil || !strings.Contains(err.Error(), unknown) {
		t.Errorf("Join: %v, want that one %s", err, unknown)
	}
}

// TestSecretIsNeeded: no ring of several ranks without one, and none with one that can be guessed, by any path.
func TestSecretIsNeeded(t *testing.T) {
	t.Parallel()
	for _, path := range append([]grpclink.Path{grpclink.PathAuto, grpclink.PathNodes}, paths...) {
		for secret, want := range map[string]string{"": "give all ranks the same 16 random bytes", "short": "can be guessed"} {
			ls, peers := listeners(t, 2)
			_ = ls[1].Close()
			cfg := config(0, peers, ls[0])
			cfg.Secret, cfg.Path = []byte(secret), path
			if g, err := grpclink.Join(t.Context(), cfg); err == nil || g != nil || !strings.Contains(err.Error(), want) {
				t.Errorf("path %q, secret %q: %v, want %q", path, secret, err, want)
			}
		}
	}
}
