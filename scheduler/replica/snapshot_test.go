package replica

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func frequentSnapshots(c *Config) {
	c.SnapshotEntries, c.TrailingLogs, c.SnapshotInterval = 20, 10, 100*time.Millisecond
}

// snapshots returns how many snapshots a store holds, of at most one.
func snapshots(t *testing.T, s Storage) int {
	t.Helper()
	list, err := s.Snapshots.List()
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A server restarts from snapshot and tail; another is wiped and gets the
// snapshot from the leader; a third has seen every entry. All are equal.
func TestSnapshotAndTailEqualReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.tune = frequentSnapshots
		w.startAll()
		defer w.stopAll()
		l := w.leader()
		must(t, l, node())
		for i := range 100 {
			must(t, l, submitted(fmt.Sprint("job", i)))
		}
		time.Sleep(time.Second) // virtual: snapshots are taken
		restarted, wiped := others(w, l.cfg.ID)[0], others(w, l.cfg.ID)[1]
		if snapshots(t, w.storage[l.cfg.ID]) == 0 || snapshots(t, w.storage[restarted]) == 0 {
			t.Fatal("no snapshots were taken")
		}
		for i := range 5 { // the tail
			must(t, l, submitted(fmt.Sprint("tail", i)))
		}
		w.stop(restarted)
		w.start(restarted)
		index := must(t, l, submitted("after the restart"))
		sameState(t, index, w.replicas)

		w.stop(wiped)
		w.storage[wiped] = MemoryStorage()
		w.start(wiped)
		index = must(t, l, submitted("after the wipe"))
		sameState(t, index, w.replicas)
		if sent := l.peers.peer(wiped).snapshots; sent == 0 {
			t.Error("the wiped server was caught up without a snapshot")
		}
		if n := w.replicas[wiped].State().Jobs(); n != 107 {
			t.Errorf("%d jobs, want 107", n)
		}
		if err := w.replicas[wiped].State().Check(); err != nil {
			t.Error(err)
		}
	})
}

func TestSnapshotRefusesDamage(t *testing.T) {
	t.Parallel()
	var good bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.startAll()
		defer w.stopAll()
		r := w.leader()
		must(t, r, node(), submitted("one"))
		if err := writeSnapshot(&good, r.State()); err != nil {
			t.Fatal(err)
		}
		s, err := readSnapshot(bytes.NewReader(good.Bytes()), "x")
		if err != nil || s.Hash() != r.State().Hash() {
			t.Fatalf("a whole snapshot: %v", err)
		}
	})
	for n := range good.Len() { // cut anywhere
		if _, err := readSnapshot(bytes.NewReader(good.Bytes()[:n]), "x"); err == nil {
			t.Fatalf("a snapshot cut to %d of %d bytes was taken", n, good.Len())
		}
	}
	accepted := 0
	for n := range good.Len() { // one bit wrong anywhere
		b := bytes.Clone(good.Bytes())
		b[n] ^= 0x10
		if _, err := readSnapshot(bytes.NewReader(b), "x"); err == nil {
			accepted++
			t.Logf("byte %d of %d may change unnoticed", n, good.Len())
		}
	}
	if accepted > 0 {
		t.Errorf("%d damaged snapshots were taken", accepted)
	}
	if _, err := readSnapshot(bytes.NewReader(append(bytes.Clone(good.Bytes()), 0)), "x"); err == nil {
		t.Error("a snapshot with a byte too many was taken")
	}
}

// A damaged newest snapshot is an error that says what to do, not a silent
// fall back to an older one.
func TestDamagedSnapshotFile(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"state.bin", "meta.json"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, 1)
			b.tune = frequentSnapshots
			b.start("a")
			defer b.stopAll()
			r := waitLeader(t, b.replicas)
			must(t, r, node())
			pattern := filepath.Join(b.config("a").Dir, "snapshots", "*-*-*", file)
			var found []string
			for i := 0; len(found) < 2 && i < 5000; i++ {
				must(t, r, submitted(fmt.Sprint("job", i)))
				found, _ = filepath.Glob(pattern)
			}
			b.stop("a")
			found, _ = filepath.Glob(pattern)
			if len(found) < 2 {
				t.Fatalf("snapshots: %v", found)
			}
			newest := found[0]
			for _, f := range found { // terms are equal; compare the indices
				if len(f) > len(newest) || len(f) == len(newest) && f > newest {
					newest = f
				}
			}
			raw, err := os.ReadFile(newest)
			if err != nil {
				t.Fatal(err)
			}
			raw[0] ^= 0xff
			if err := os.WriteFile(newest, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err = b.open("a")
			if err == nil {
				_ = r.Close()
				t.Fatal("opened with a damaged snapshot")
			}
			if !strings.Contains(err.Error(), "rejoin empty") {
				t.Errorf("%q does not say what to do", err)
			}
		})
	}
}

var _ raft.FSMSnapshot = (*snapshot)(nil)
