package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/gangline/gangline/scheduler/cluster"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirEnv); dir != "" {
		os.Exit(childMain(dir))
	}
	goleak.VerifyTestMain(m)
}

// quiet drops log lines; set GANGLINE_TEST_LOG to see them.
func quiet() *slog.Logger {
	if os.Getenv("GANGLINE_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// submitted is a job that is accepted on any cluster with a node of a GPU.
func submitted(id string) *cluster.SubmitJob {
	spec := &cluster.JobSpec{Name: id, GPUs: 1, Command: []string{"true"}}
	spec.Normalize()
	return &cluster.SubmitJob{RequestID: id, User: "ada", Spec: spec}
}

// node makes jobs of one GPU acceptable.
func node() *cluster.RegisterNode {
	return &cluster.RegisterNode{Node: cluster.Node{
		ID: "n1", Name: "n1", Incarnation: 1, Address: "n1:1", Host: "n1", CPUMilli: 8000, MemBytes: 1 << 30,
		GPUs: []cluster.GPU{{UUID: "GPU-1", Type: "h100", MemBytes: 1 << 30, Healthy: true}},
	}}
}

// world is a cluster of servers in one process, on an in-memory transport.
type world struct {
	t          *testing.T
	servers    []Server
	transports map[string]*raft.InmemTransport
	storage    map[string]Storage
	replicas   map[string]*Replica
	tune       func(*Config)
}

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	w := &world{t: t, transports: map[string]*raft.InmemTransport{}, storage: map[string]Storage{}, replicas: map[string]*Replica{}}
	for i := range n {
		id := string(rune('a' + i))
		w.servers = append(w.servers, Server{ID: id, Address: id + ":1"})
		w.storage[id] = MemoryStorage()
	}
	return w
}

func (w *world) start(id string) *Replica {
	w.t.Helper()
	_, tr := raft.NewInmemTransport(raft.ServerAddress(id + ":1"))
	w.transports[id] = tr
	w.heal(id)
	cfg := Config{ID: id, Servers: w.servers, Logger: quiet()}
	if w.tune != nil {
		w.tune(&cfg)
	}
	r, err := OpenWith(cfg, w.storage[id], tr)
	if err != nil {
		w.t.Fatalf("open %s: %v", id, err)
	}
	w.replicas[id] = r
	return r
}

func (w *world) startAll() {
	w.t.Helper()
	for _, s := range w.servers {
		w.start(s.ID)
	}
}

// heal connects a server with all others that run.
func (w *world) heal(id string) {
	for other, tr := range w.transports {
		if other != id {
			tr.Connect(raft.ServerAddress(id+":1"), w.transports[id])
			w.transports[id].Connect(raft.ServerAddress(other+":1"), tr)
		}
	}
}

// isolate cuts a server off.
func (w *world) isolate(id string) {
	w.transports[id].DisconnectAll()
	for other, tr := range w.transports {
		if other != id {
			tr.Disconnect(raft.ServerAddress(id + ":1"))
		}
	}
}

func (w *world) stop(id string) {
	w.t.Helper()
	w.isolate(id)
	if err := w.replicas[id].Close(); err != nil {
		w.t.Errorf("close %s: %v", id, err)
	}
	delete(w.replicas, id)
	delete(w.transports, id)
}

func (w *world) stopAll() {
	for _, s := range w.servers {
		if w.replicas[s.ID] != nil {
			w.stop(s.ID)
		}
	}
	// Raft's Shutdown does not wait for a leadership transfer under way, whose
	// call to a server that is gone ends by its own time-out of 5 s. Virtual time.
	time.Sleep(raftCallsEnd)
}

// raftCallsEnd is longer than any time-out of the library's own.
const raftCallsEnd = time.Minute

// leader waits for a ready leader among the given servers, or all.
func (w *world) leader(among ...string) *Replica {
	w.t.Helper()
	return waitLeader(w.t, w.replicas, among...)
}

func waitLeader(t testing.TB, replicas map[string]*Replica, among ...string) *Replica {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for id, r := range replicas {
			if len(among) > 0 && !contains(among, id) {
				continue
			}
			if r.Status().Ready {
				return r
			}
		}
	}
	t.Fatal("no leader within 30 s")
	return nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// must proposes and fails the test on any error or refusal.
func must(t *testing.T, r *Replica, cmds ...cluster.Command) uint64 {
	t.Helper()
	results, index, err := r.Propose(testContext(t), cmds...)
	if err != nil {
		t.Fatalf("propose: %v", err)
	}
	for i, res := range results {
		if res.Code != cluster.OK {
			t.Fatalf("command %d (%T): %s", i, cmds[i], res.Message)
		}
	}
	return index
}

// agreed has whoever leads take commands, as clients do: a real cluster on a busy machine may change its leader at any moment, and who proposed to the
// former one asks again. It returns the leader that took them.
func agreed(t *testing.T, replicas map[string]*Replica, cmds ...cluster.Command) (*Replica, uint64) {
	t.Helper()
	ctx := testContext(t)
	for {
		l := waitLeader(t, replicas)
		results, index, err := l.Propose(ctx, cmds...)
		var not *NotLeaderError
		if ctx.Err() == nil && (errors.As(err, &not) || errors.Is(err, ErrUnknownOutcome)) {
			continue
		}
		if err != nil {
			t.Fatalf("propose: %v", err)
		}
		for i, res := range results {
			if res.Code != cluster.OK {
				t.Fatalf("command %d (%T): %s", i, cmds[i], res.Message)
			}
		}
		return l, index
	}
}

// sameState checks that all replicas reach the index with equal hashes.
func sameState(t *testing.T, index uint64, replicas map[string]*Replica) {
	t.Helper()
	hashes := map[string]string{}
	for id, r := range replicas {
		if err := r.WaitIndex(testContext(t), index); err != nil {
			t.Fatalf("%s: wait for index %d: %v", id, index, err)
		}
		s := r.State()
		if s.Index() != index {
			t.Fatalf("%s: index %d, want %d", id, s.Index(), index)
		}
		hashes[fmt.Sprintf("%016x", s.Hash())] += id
	}
	if len(hashes) != 1 {
		t.Fatalf("states differ at index %d: %v", index, hashes)
	}
}
