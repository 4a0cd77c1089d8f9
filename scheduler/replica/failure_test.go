package replica

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	raftlogv1 "github.com/gangline/gangline/proto/gangline/raftlog/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// faultyStore is a log and vote store whose writes can be made to fail or hang.
type faultyStore struct {
	*raft.InmemStore
	full atomic.Bool
	hang atomic.Pointer[chan struct{}] // while set, writes wait for it to be closed
}

func (s *faultyStore) fault() error {
	if ch := s.hang.Load(); ch != nil {
		<-*ch
	}
	if s.full.Load() {
		return syscall.ENOSPC
	}
	return nil
}

func (s *faultyStore) StoreLogs(l []*raft.Log) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.InmemStore.StoreLogs(l)
}

func (s *faultyStore) Set(k, v []byte) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.InmemStore.Set(k, v)
}

func (s *faultyStore) SetUint64(k []byte, v uint64) error {
	if err := s.fault(); err != nil {
		return err
	}
	return s.InmemStore.SetUint64(k, v)
}

// faultyWorld gives each server a store that can be broken.
func faultyWorld(t *testing.T, n int) (*world, map[string]*faultyStore) {
	w := newWorld(t, n)
	stores := map[string]*faultyStore{}
	for _, s := range w.servers {
		f := &faultyStore{InmemStore: raft.NewInmemStore()}
		stores[s.ID] = f
		w.storage[s.ID] = Storage{Logs: f, Stable: f, Snapshots: raft.NewInmemSnapshotStore()}
	}
	return w, stores
}

func others(w *world, id string) []string {
	var list []string
	for _, s := range w.servers {
		if s.ID != id {
			list = append(list, s.ID)
		}
	}
	return list
}

func TestDiskFullOnLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, stores := faultyWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		l := w.leader()
		index := must(t, l, node(), submitted("before"))
		stores[l.cfg.ID].full.Store(true)
		_, _, err := l.Propose(testContext(t), submitted("on the full disk"))
		if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("propose on a full disk: %v", err)
		}
		<-l.Failed()
		if err := l.Err(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("failure: %v", err)
		}
		if _, _, err := l.Propose(testContext(t), submitted("later")); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("propose after the failure: %v", err)
		}
		next := w.leader(others(w, l.cfg.ID)...)
		if s := next.State(); s.Index() < index || s.Request("before") == nil {
			t.Error("an acknowledged job is lost")
		}
		must(t, next, submitted("on the full disk")) // the client's retry
		w.stop(l.cfg.ID)
		stores[l.cfg.ID].full.Store(false) // the operator made room
		w.start(l.cfg.ID)
		sameState(t, must(t, w.leader(), submitted("after")), w.replicas)
	})
}

func TestDiskFullWhenVoting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, stores := faultyWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		l := w.leader()
		must(t, l, node())
		full := others(w, l.cfg.ID)[0]
		stores[full].full.Store(true)
		w.isolate(l.cfg.ID) // an election: raft would panic when it cannot store term or vote
		<-w.replicas[full].Failed()
		if err := w.replicas[full].Err(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("failure: %v", err)
		}
		w.heal(l.cfg.ID)
		healthy := others(w, full)
		must(t, w.leader(healthy...), submitted("two of three go on"))
	})
}

func TestDiskHangsOnLeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, stores := faultyWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		l := w.leader()
		must(t, l, node(), submitted("before"))
		hang := make(chan struct{})
		stores[l.cfg.ID].hang.Store(&hang)
		began := time.Now()
		answer := make(chan error, 1)
		go func() {
			_, _, err := l.Propose(testContext(t), submitted("hangs"))
			answer <- err
		}()
		<-l.Failed()
		if err := l.Err(); !strings.Contains(err.Error(), "not finished") {
			t.Errorf("failure: %v", err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("noticed after %s", d)
		}
		if err := <-answer; !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("propose on a hung disk: %v", err)
		}
		w.isolate(l.cfg.ID) // as when the process exits
		next := w.leader(others(w, l.cfg.ID)...)
		must(t, next, submitted("hangs"))
		stores[l.cfg.ID].hang.Store(nil)
		close(hang)
	})
}

// A write that is slow but ends costs the leader its leadership, nothing more.
func TestSlowDiskHandsLeadershipOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, stores := faultyWorld(t, 3)
		w.startAll()
		defer w.stopAll()
		l := w.leader()
		must(t, l, node())
		hang := make(chan struct{})
		stores[l.cfg.ID].hang.Store(&hang)
		done := make(chan error, 1)
		go func() {
			_, _, err := l.Propose(testContext(t), submitted("slow"))
			done <- err
		}()
		time.Sleep(2500 * time.Millisecond) // virtual
		stores[l.cfg.ID].hang.Store(nil)
		close(hang)
		if err := <-done; err != nil && !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("propose: %v", err)
		}
		next := w.leader(others(w, l.cfg.ID)...)
		if err := l.Err(); err != nil {
			t.Errorf("the slow server stopped: %v", err)
		}
		sameState(t, must(t, next, submitted("slow"), submitted("next")), w.replicas)
	})
}

// TestDiskHangsOnLoneServer: where nobody else could lead, a disk that hangs for long stops nothing: the server waits, and goes on.
func TestDiskHangsOnLoneServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, stores := faultyWorld(t, 1)
		w.startAll()
		defer w.stopAll()
		l := w.leader()
		must(t, l, node())
		hang := make(chan struct{})
		stores[l.cfg.ID].hang.Store(&hang)
		done := make(chan error, 1)
		go func() {
			_, _, err := l.Propose(testContext(t), submitted("patient"))
			done <- err
		}()
		time.Sleep(25 * time.Second) // virtual; a leader of three would have stopped
		stores[l.cfg.ID].hang.Store(nil)
		close(hang)
		if err := <-done; err != nil && !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("propose: %v", err)
		}
		if err := l.Err(); err != nil {
			t.Errorf("the lone server stopped: %v", err)
		}
		must(t, l, submitted("next"))
	})
}

// rawEntry gives Raft an entry that Propose would never make.
func rawEntry(t *testing.T, r *Replica, e *raftlogv1.Entry) {
	t.Helper()
	data, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	f := r.raft.Apply(data, time.Second)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	if err, ok := f.Response().(error); !ok {
		t.Errorf("the FSM answered %v, want an error", err)
	}
}

func TestUnknownCommandStops(t *testing.T) {
	t.Parallel()
	known := cluster.AppendCommand(nil, submitted("in the same entry"))
	for name, e := range map[string]*raftlogv1.Entry{
		"kind":    {Version: cluster.Version, Commands: [][]byte{known, {250, 1, 2, 3}}},
		"version": {Version: cluster.Version + 1, Commands: [][]byte{known}},
		"corrupt": {Version: cluster.Version, Commands: [][]byte{known, known[:len(known)-3]}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 3)
				w.tune = func(c *Config) { c.Release = "gangline 0.2.0" }
				w.startAll()
				defer w.stopAll()
				l := w.leader()
				index := must(t, l, node(), submitted("before"))
				rawEntry(t, l, e)
				for id, r := range w.replicas {
					if r != l { // a follower may die before it hears that the entry committed
						continue
					}
					<-r.Failed()
					msg := r.Err().Error()
					if !strings.Contains(msg, "gangline 0.2.0") || !strings.Contains(msg, fmt.Sprint("log entry ", index+1)) {
						t.Errorf("%s: failure %q names neither release nor entry", id, msg)
					}
					if s := r.State(); s.Index() != index || s.Request("in the same entry") != nil {
						t.Errorf("%s: applied up to %d, want %d and nothing of the entry", id, s.Index(), index)
					}
					if st := r.Status(); st.Err == nil || st.Role != "stopped" {
						t.Errorf("%s: status %+v", id, st)
					}
					if _, _, err := r.Propose(testContext(t), submitted("after")); err == nil || err.Error() != msg {
						t.Errorf("%s: propose after the failure: %v", id, err)
					}
				}
			})
		})
	}
}

func TestProposeTooLarge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.startAll()
		defer w.stopAll()
		r := w.leader()
		must(t, r, node())
		huge := submitted("huge")
		huge.Spec.Dir = new(strings.Repeat("x", maxEntryBytes))
		before := r.raft.LastIndex()
		if _, _, err := r.Propose(testContext(t), submitted("small"), huge); err == nil || !strings.Contains(err.Error(), "command 2 of 2") {
			t.Errorf("propose: %v", err)
		}
		if after := r.raft.LastIndex(); after != before {
			t.Errorf("the log grew from %d to %d", before, after)
		}
		var many []cluster.Command // about 3 MiB in all: at least three entries
		for i := range 15 {
			c := submitted(fmt.Sprint("large", i))
			c.Spec.Command = []string{strings.Repeat("y", 200<<10)}
			many = append(many, c)
		}
		results, index, err := r.Propose(testContext(t), many...)
		if err != nil || index < before+3 {
			t.Fatalf("index %d after %d, %v", index, before, err)
		}
		for i, res := range results {
			if want := r.State().Request(fmt.Sprint("large", i)); res.Code != cluster.OK || want == nil || want.Job != res.Job {
				t.Errorf("result %d: %+v, state says %+v", i, res, want)
			}
		}
	})
}
