package replica

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const testSegment = 1 << 20 // the library reserves a whole segment on disk at once

// box is a cluster of servers on loopback with real files.
type box struct {
	t        testing.TB
	dir      string
	servers  []Server
	muxes    map[string]*Mux
	replicas map[string]*Replica
	tune     func(*Config)
}

// nextPort is below the range from which kernels choose ports for outgoing
// connections: none of these takes a port while its server is stopped, nor does
// another run of these tests, whose ports are 64 away if its process is the next.
// Those from 20000 on are for tests of package main.
var nextPort atomic.Int64 // shared by parallel tests

// listenForGood listens on a port that stays free for who closes it and comes back.
func listenForGood(t testing.TB) net.Listener {
	t.Helper()
	nextPort.CompareAndSwap(0, int64(10_000+os.Getpid()*64%9_000))
	for range 1000 {
		if ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort.Add(1))); err == nil {
			return ln
		}
	}
	t.Fatal("no free port on loopback")
	return nil
}

func newBox(t testing.TB, n int) *box {
	t.Helper()
	b := &box{t: t, dir: t.TempDir(), muxes: map[string]*Mux{}, replicas: map[string]*Replica{}}
	for i := range n {
		ln := listenForGood(t)
		id := string(rune('a' + i))
		b.servers = append(b.servers, Server{ID: id, Address: ln.Addr().String()})
		b.muxes[id] = NewMux(ln, MuxConfig{Logger: quiet()})
	}
	return b
}

func (b *box) config(id string) Config {
	cfg := Config{ID: id, Servers: b.servers, Dir: filepath.Join(b.dir, id), Logger: quiet(), segmentBytes: testSegment}
	if b.tune != nil {
		b.tune(&cfg)
	}
	return cfg
}

func (b *box) open(id string) (*Replica, error) {
	b.t.Helper()
	if b.muxes[id] == nil {
		var address string
		for _, s := range b.servers {
			if s.ID == id {
				address = s.Address
			}
		}
		ln, err := net.Listen("tcp", address)
		if err != nil {
			b.t.Fatal(err)
		}
		b.muxes[id] = NewMux(ln, MuxConfig{Logger: quiet()})
	}
	return Open(b.config(id), b.muxes[id].Raft())
}

func (b *box) start(id string) *Replica {
	b.t.Helper()
	r, err := b.open(id)
	if err != nil {
		b.t.Fatalf("open %s: %v", id, err)
	}
	b.replicas[id] = r
	return r
}

func (b *box) startAll() {
	b.t.Helper()
	for _, s := range b.servers {
		b.start(s.ID)
	}
}

func (b *box) stop(id string) {
	b.t.Helper()
	if r := b.replicas[id]; r != nil {
		if err := r.Close(); err != nil {
			b.t.Errorf("close %s: %v", id, err)
		}
		delete(b.replicas, id)
	}
	if m := b.muxes[id]; m != nil {
		if err := m.Close(); err != nil {
			b.t.Errorf("close the mux of %s: %v", id, err)
		}
		delete(b.muxes, id)
	}
}

func (b *box) stopAll() {
	for _, s := range b.servers {
		b.stop(s.ID)
	}
}

func TestThreeServersOverLoopback(t *testing.T) {
	t.Parallel()
	b := newBox(t, 3)
	b.tune = func(c *Config) { c.Registerer = prometheus.NewRegistry() }
	b.startAll()
	defer b.stopAll()
	l, _ := agreed(t, b.replicas, node())
	for i := range 20 {
		l, _ = agreed(t, b.replicas, submitted(fmt.Sprint("before", i)))
	}
	gone := l.cfg.ID
	b.stop(gone)
	_, index := agreed(t, b.replicas, submitted("while one is away"))
	sameState(t, index, b.replicas)
	b.start(gone)
	_, index = agreed(t, b.replicas, submitted("together again"))
	sameState(t, index, b.replicas)
	if n := b.replicas[gone].State().Jobs(); n != 22 {
		t.Errorf("%d jobs, want 22", n)
	}
	families, err := b.replicas[gone].cfg.Registerer.(*prometheus.Registry).Gather()
	if err != nil || len(families) < 6 {
		t.Errorf("metrics: %d families, %v", len(families), err)
	}
}

// Two clusters; then a server of one is started with the other's directory.
func TestWrongClusterIsRefused(t *testing.T) {
	t.Parallel()
	one, two := newBox(t, 3), newBox(t, 3)
	one.startAll()
	defer one.stopAll()
	two.startAll()
	defer two.stopAll()
	for _, b := range []*box{one, two} {
		_, index := agreed(t, b.replicas, node())
		sameState(t, index, b.replicas)
	}
	idOne, idTwo := one.replicas["a"].State().ClusterID(), two.replicas["a"].State().ClusterID()
	one.stop("c")
	two.stop("c")
	one.tune = func(c *Config) { c.Dir = filepath.Join(two.dir, "c") }
	stray := one.start("c")
	select {
	case <-stray.Failed():
	case <-time.After(20 * time.Second):
		t.Fatal("the stray server goes on")
	}
	var wrong *WrongClusterError
	if err := stray.Err(); !errors.As(err, &wrong) || wrong.Theirs != idOne || wrong.Ours != idTwo {
		t.Errorf("failure: %v; want the ids %s and %s", err, idOne, idTwo)
	}
	if !strings.Contains(stray.Err().Error(), stray.cfg.Dir) {
		t.Errorf("failure %q does not name the directory", stray.Err())
	}
	agreed(t, map[string]*Replica{"a": one.replicas["a"], "b": one.replicas["b"]}, submitted("the majority is not disturbed"))
	for _, id := range []string{"a", "b"} {
		if err := one.replicas[id].Err(); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	b := newBox(t, 1)
	b.start("a")
	defer b.stopAll()
	waitLeader(t, b.replicas)
	want := func(what string, cfg Config, parts ...string) {
		t.Helper()
		m := newTestMux(t, MuxConfig{})
		r, err := Open(cfg, m.Raft())
		if err == nil {
			_ = r.Close()
			t.Fatalf("%s: opened", what)
		}
		for _, p := range parts {
			if !strings.Contains(err.Error(), p) {
				t.Errorf("%s: %q does not say %q", what, err, p)
			}
		}
	}
	want("directory in use", b.config("a"), "in use", b.config("a").Dir)

	cfg := b.config("a")
	cfg.ID = "z"
	want("unknown id", cfg, `"z"`, "not in the list")

	cfg = b.config("a")
	cfg.Servers = append(cfg.Servers, Server{ID: "b", Address: cfg.Servers[0].Address})
	want("one address twice", cfg, "given twice")

	b.stop("a")
	cfg = b.config("a")
	cfg.Servers = append(cfg.Servers, Server{ID: "b", Address: "127.0.0.1:1"})
	want("other members", cfg, "does not change members", "[a b]")
}

func TestLogGoneIsNotBootstrapped(t *testing.T) {
	t.Parallel()
	cfg := Config{ID: "a", Servers: []Server{{ID: "a", Address: "127.0.0.1:1"}}, Dir: t.TempDir(), Logger: quiet(), segmentBytes: testSegment}
	if err := writeClusterID(cfg.Dir, "0123abcd"); err != nil {
		t.Fatal(err)
	}
	r, err := Open(cfg, newTestMux(t, MuxConfig{}).Raft())
	if err == nil {
		_ = r.Close()
		t.Fatal("opened, and bootstrapped a second cluster")
	}
	for _, part := range []string{"0123abcd", "log is gone", "delete"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestEventsAndWaitIndex(t *testing.T) {
	t.Parallel()
	b := newBox(t, 1)
	b.tune = func(c *Config) { c.Events = 8 }
	b.start("a")
	defer b.stopAll()
	r := waitLeader(t, b.replicas)
	from := must(t, r, node()) + 1
	ctx := testContext(t)
	got := make(chan error, 1)
	go func() {
		events, next, err := r.Events(ctx, from)
		if err == nil && (len(events) != 1 || events[0].Job == nil || events[0].Job.RequestID != "one" || next != events[0].Index+1) {
			err = fmt.Errorf("events %+v, next %d", events, next)
		}
		got <- err
	}()
	must(t, r, submitted("one"))
	if err := <-got; err != nil {
		t.Error(err)
	}
	for i := range 20 {
		must(t, r, submitted(fmt.Sprint("more", i)))
	}
	var gone *EventsGoneError
	if _, _, err := r.Events(ctx, from); !errors.As(err, &gone) || gone.From != from || gone.Oldest <= from {
		t.Errorf("events of long ago: %v", err)
	}
	if events, _, err := r.Events(ctx, gone.Oldest); err != nil || len(events) != 8 {
		t.Errorf("from the oldest: %d events, %v; want 8", len(events), err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if err := r.WaitIndex(short, r.State().Index()+1); !errors.Is(err, context.Canceled) {
		t.Errorf("wait for the future: %v", err)
	}
}
