package nodeagent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

func TestRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	follower, leader := newScheduler(t), newScheduler(t)
	follower.set(func() { follower.redirect = &agentv1.Redirect{LeaderAddress: leader.address} })
	start(t, testConfig(t, follower)) // knows the follower alone
	leader.await("hello", func() bool { return leader.hello != nil && leader.beats > 0 })
}

func TestNoLeaderYet(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	s.set(func() { s.redirect = &agentv1.Redirect{} })
	start(t, testConfig(t, s))
	s.await("a few tries", func() bool { return s.hellos >= 3 })
	s.set(func() { s.redirect = nil })
	s.await("beats", func() bool { return s.beats > 0 })
}

func TestNameTaken(t *testing.T) {
	t.Parallel()
	s := newScheduler(t)
	s.set(func() {
		s.refuse = status.Error(codes.AlreadyExists, `a live node named "n1" exists (id other): give this agent another --name`)
	})
	r := start(t, testConfig(t, s))
	s.await("tries", func() bool { return s.hellos >= 3 })
	contains(t, r.log.String(), "level=ERROR", "the scheduler refuses this node", "give this agent another --name")
	s.set(func() { s.refuse = nil })
	s.await("beats", func() bool { return s.beats > 0 })
}

// TestWrongCluster: the agent ends with an error that says what to do, and leaves its worker alone.
func TestWrongCluster(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*scheduler){
		"the agent sees it": func(s *scheduler) { s.cluster = "c2" },
		"the server sees it": func(s *scheduler) {
			s.refuse = status.Error(codes.FailedPrecondition, "node n1 belongs to cluster c1, this is cluster c2")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScheduler(t)
			cfg := testConfig(t, s)
			first := start(t, cfg)
			s.order(1, 1, first.script(1, 1, "sleep 1000"))
			s.awaitWorker("1-1-0", isRunning)
			first.stop()
			s.set(func() { change(s); s.desired = &agentv1.Desired{Fence: &agentv1.Fence{Term: 9, Index: 9}} })
			second := start(t, cfg)
			<-second.ended
			var wrong *WrongClusterError
			if !errors.As(second.err, &wrong) {
				t.Fatalf("agent ended with %v", second.err)
			}
			contains(t, second.err.Error(), "c1", "c2", "remove its state directory "+cfg.StateDir)
			s.set(func() {
				s.cluster, s.refuse, s.workers = "c1", nil, nil
				s.desired = nil
			})
			start(t, cfg)
			s.awaitWorker("1-1-0", isRunning)
		})
	}
}

// TestHungServers: one accepts connections and says nothing; another hangs while it leads. The agent goes on to the third.
func TestHungServers(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	one, two := newScheduler(t), newScheduler(t)
	two.set(func() { two.redirect = &agentv1.Redirect{} })
	cfg := testConfig(t, one, two)
	cfg.Servers = append([]string{l.Addr().String()}, cfg.Servers...)
	start(t, cfg)
	one.await("beats", func() bool { return one.beats > 0 })
	began := time.Now()
	two.set(func() { two.redirect = nil })
	one.set(func() { one.hang = true; one.redirect = &agentv1.Redirect{LeaderAddress: two.address} })
	two.await("beats", func() bool { return two.beats > 0 })
	// Noticed within 3 s; then the silent one may be tried for another 3 s before the third; the rest is
	// for a loaded machine.
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took %v to leave a hung leader", took)
	}
}

func TestServersTakeTurns(t *testing.T) {
	t.Parallel()
	s := &servers{configured: []string{"a", "b"}}
	s.learn([]string{"b", "c"})
	s.last = "a"
	var got []string
	for range 5 {
		got = append(got, s.pick())
	}
	s.preferred = "x"
	got = append(got, s.pick(), s.pick())
	if text := strings.Join(got, ""); text != "bcabcxa" {
		t.Errorf("order %q", text)
	}
}

func TestBackoffIsBounded(t *testing.T) {
	t.Parallel()
	var b backoff
	var longest time.Duration
	for tries := range 200 {
		d := b.failed()
		if limit := min(backoffMin<<min(tries, 10), time.Second); d < 0 || d >= limit {
			t.Fatalf("after %d failures: %v", tries, d)
		}
		longest = max(longest, d)
	}
	if longest < backoffMax/2 {
		t.Errorf("the longest of 200 waits is %v: agents come back in step", longest)
	}
}

// However long nobody led, the way from a dead server over a follower to the leader takes no wait; a circle of servers is
// not run round in.
func TestTriesAtOnceAreFew(t *testing.T) {
	t.Parallel()
	var b backoff
	for range 20 {
		b.failed()
	}
	for range maxAtOnce {
		if d := b.atOnce(); d != 0 {
			t.Errorf("the next server is tried after %v", d)
		}
	}
	var total time.Duration
	for range 300 {
		total += b.atOnce()
	}
	if total < 20*time.Second {
		t.Errorf("servers that point at each other: 300 tries in %v", total)
	}
	b = backoff{free: maxAtOnce}
	b.failed()
	if d := b.atOnce(); d != 0 {
		t.Errorf("the first try after a wait is made after %v", d)
	}
}

// TestLeaderNamedAfterLongElection: nobody leads for several tries, then a follower names the new leader.
func TestLeaderNamedAfterLongElection(t *testing.T) {
	t.Parallel()
	old, follower, leader := newScheduler(t), newScheduler(t), newScheduler(t)
	follower.set(func() { follower.redirect = &agentv1.Redirect{} })
	leader.set(func() { leader.redirect = &agentv1.Redirect{} })
	start(t, testConfig(t, old, follower, leader))
	old.await("beats", func() bool { return old.beats > 0 })
	old.stop()
	follower.await("tries", func() bool { return follower.hellos >= 4 })
	leader.set(func() { leader.redirect = nil })
	follower.set(func() { follower.redirect = &agentv1.Redirect{LeaderAddress: leader.address} })
	leader.await("beats", func() bool { return leader.beats > 0 })
}

func TestFenceFileSurvivesTornWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), fenceName)
	for i := uint64(1); i <= 5; i++ {
		ff, err := openFence(path)
		if err != nil {
			t.Fatal(err)
		}
		if want := (reconcile.Fence{Term: 1, Index: i - 1}); i > 1 && ff.highest != want {
			t.Fatalf("read %+v, want %+v", ff.highest, want)
		}
		if err := ff.raise(reconcile.Fence{Term: 1, Index: i}); err != nil {
			t.Fatal(err)
		}
		if err := ff.close(); err != nil {
			t.Fatal(err)
		}
	}
	// The last write tore: the one before it counts.
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest := 0
	if data[slotGap+8] == 5 {
		newest = slotGap
	}
	data[newest+12]++
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ff, err := openFence(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ff.close()
	if ff.highest != (reconcile.Fence{Term: 1, Index: 4}) {
		t.Errorf("after a torn write: %+v", ff.highest)
	}
}

func TestDamagedIdentityIsExplained(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, newScheduler(t))
	if err := os.WriteFile(filepath.Join(cfg.StateDir, identityFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "remove the state directory to join as a new node") {
		t.Errorf("%v", err)
	}
}

func TestValidateReportsAll(t *testing.T) {
	t.Parallel()
	err := Config{Servers: []string{"nowhere"}, Listen: "x", GPUs: "fake:0xH100", TLS: TLS{CertFile: "a"}, Labels: map[string]string{"": "x"}, Taints: map[string]string{"gpu": "bro\nken"}}.Validate()
	contains(t, err.Error(), "name", "state dir", `server "nowhere"`, `listen "x"`, "fake:0xH100", "supervisor", "log limits", "tls", `label ""="x"`, `taint "gpu"="bro\nken"`)
	cfg := DefaultConfig()
	cfg.Name, cfg.StateDir, cfg.Servers = "n1", "/var/lib/gangline", []string{"h:1"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
