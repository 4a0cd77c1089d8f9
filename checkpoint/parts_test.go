package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// gang is two nodes whose programs write files, each on its own disk; the shared directory has step 10 complete.
type gang struct {
	shared *faultfs.FS
	own    [2]*faultfs.FS
	// What commit has come to.
	parts  int
	joined bool
}

func newGang(tb testing.TB) *gang {
	tb.Helper()
	shared, s := begun(tb, 3)
	commitFiles(tb, s, shared, ref(3, 10))
	g := &gang{shared: shared, own: [2]*faultfs.FS{faultfs.New(), faultfs.New()}}
	g.write(tb, 20)
	return g
}

// write is what the programs of both nodes do: together the files of putFiles, one of them on both.
func (g *gang) write(tb testing.TB, step uint64) {
	tb.Helper()
	from := fmt.Sprintf("tmp-%d/", step)
	put(tb, g.own[0], from+"empty", nil)
	put(tb, g.own[0], from+"model.pt", content(step, 1))
	put(tb, g.own[1], from+"empty", nil)
	put(tb, g.own[1], from+"ranks/r 1/ünï\"quote.bin", content(step, 2))
}

func (g *gang) part(of checkpoint.Ref, n int) checkpoint.PartCommit {
	return checkpoint.PartCommit{FilesCommit: filesOf(of), Index: n, Count: 2, Node: fmt.Sprintf("n%d", n+1), Asked: n == 0}
}

func (g *gang) commitPart(tb testing.TB, of checkpoint.Ref, n int) error {
	_, err := open(tb, g.shared).CommitPart(tb.Context(), open(tb, g.own[n]), g.part(of, n))
	return err
}

// source opens the files of a node's part on its disk.
func (g *gang) source(of checkpoint.Ref, n int) checkpoint.PartSource {
	return func(name string) (io.ReaderAt, io.Closer, error) {
		f, err := g.own[n].Open(checkpoint.PartDir(of, n, 2) + "/" + name)
		return f, f, err
	}
}

// commit does all that a commit takes, as far as it comes: every call again, as agents do.
func (g *gang) commit(tb testing.TB, of checkpoint.Ref) error {
	s := open(tb, g.shared)
	for n := range 2 {
		if err := g.commitPart(tb, of, n); err != nil {
			return err
		}
		g.parts = n + 1
	}
	if _, err := s.JoinParts(tb.Context(), of); err != nil {
		return err
	}
	g.joined = true
	for n := range 2 {
		if err := s.DrainPart(tb.Context(), of, n, g.source(of, n), nil); err != nil {
			return err
		}
	}
	_, _, err := s.SettleParts(tb.Context(), of)
	return err
}

func TestPartsBecomeOne(t *testing.T) {
	t.Parallel()
	g := newGang(t)
	of, s := ref(3, 20), open(t, g.shared)
	if err := g.commitPart(t, of, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.JoinParts(t.Context(), of); !errors.Is(err, checkpoint.ErrIncomplete) || !strings.Contains(err.Error(), "nodes [0] of 2 are missing") {
		t.Errorf("joined with one part missing: %v", err)
	}
	if err := g.commitPart(t, of, 0); err != nil {
		t.Fatal(err)
	}
	if _, missing, err := s.SettleParts(t.Context(), of); !errors.Is(err, checkpoint.ErrIncomplete) || missing != nil {
		t.Errorf("settled before it was joined: %v, %v", missing, err)
	}
	m, err := s.JoinParts(t.Context(), of)
	if err != nil || !m.Local || m.Metrics["loss"] != 20 {
		t.Errorf("joined: %+v, %v", m, err)
	}
	if waiting, err := s.WaitingParts(t.Context()); err != nil || len(waiting) != 1 || waiting[0] != of {
		t.Errorf("waiting: %v, %v", waiting, err)
	}
	if found, err := s.Inventory(t.Context(), time.Time{}); err != nil || len(found) != 2 || found[0].Ref != of || !found[0].Local || found[0].Complete {
		t.Errorf("listed: %+v, %v", found, err)
	}
	if err := s.DrainPart(t.Context(), of, 0, g.source(of, 0), nil); err != nil {
		t.Fatal(err)
	}
	if _, missing, err := s.SettleParts(t.Context(), of); !errors.Is(err, checkpoint.ErrIncomplete) || len(missing) != 1 || missing[0] != 1 {
		t.Errorf("settled with half of the files: %v, %v", missing, err)
	}
	wantFiles(t, open(t, g.shared), g.shared, ref(3, 10))
	for range 2 { // and once more
		if err := g.commit(t, of); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, open(t, g.shared), g.shared, of)
	}
	if waiting, err := s.WaitingParts(t.Context()); err != nil || len(waiting) != 0 {
		t.Errorf("waiting: %v, %v", waiting, err)
	}
	put(t, g.own[0], "tmp-20/model.pt", content(21, 1))
	if err := g.commitPart(t, of, 0); !errors.Is(err, checkpoint.ErrCommitted) {
		t.Errorf("other files under a step that is complete: %v", err)
	}
	if err := s.SweepParts(t.Context(), ref(3, 21)); err != nil {
		t.Fatal(err)
	}
	if parts, err := s.PartsOf(t.Context()); err != nil || len(parts) > 0 {
		t.Errorf("after the sweep: %v, %v", parts, err)
	}
}

// TestPartsPowerCutAtEveryOperation cuts the power of the shared storage or of one node at each operation: afterwards the step is whole or absent, and the same calls again end it.
func TestPartsPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	of := ref(3, 20)
	for which := range 3 {
		for at, whole := 1, false; !whole; at++ {
			for _, mode := range []faultfs.CrashMode{faultfs.DropAll, faultfs.KeepNames} {
				g := newGang(t)
				disk := g.shared
				if which < 2 {
					disk = g.own[which]
				}
				disk.Arm(faultfs.Plan{PowerAt: at})
				err := g.commit(t, of)
				whole = err == nil
				disk.Crash(mode, nil)
				want := ref(3, 10)
				m, skipped, lerr := open(t, g.shared).Latest(t.Context())
				if lerr != nil || len(skipped) > 0 || m.Ref() != of && (m.Ref() != want || whole) {
					t.Fatalf("disk %d cut at %d (%v), commit said %v: %v, %v, skipped %v", which, at, mode, err, m.Ref(), lerr, skipped)
				}
				wantFiles(t, open(t, g.shared), g.shared, m.Ref())
				g.wantKept(t, of)
				g.rewrite(t, of)
				if err := g.commit(t, of); err != nil {
					t.Fatalf("disk %d cut at %d (%v): again: %v", which, at, mode, err)
				}
				wantFiles(t, open(t, g.shared), g.shared, of)
			}
		}
	}
}

// wantKept checks that what was said to be done is done: parts are final, and what was joined is not lost.
func (g *gang) wantKept(tb testing.TB, of checkpoint.Ref) {
	tb.Helper()
	parts, err := open(tb, g.shared).LookAtParts(tb.Context(), of)
	if err != nil || !parts.Complete && (len(parts.Have) < g.parts || !parts.Joined && g.joined) {
		tb.Fatalf("%d parts were there, joined %t; now %+v, %v", g.parts, g.joined, parts, err)
	}
	for n := range g.parts {
		if dir, err := g.own[n].ReadDir(checkpoint.PartDir(of, n, 2)); err != nil || len(dir) < 2 {
			tb.Fatalf("node %d has lost its part: %v, %v", n, dir, err)
		}
	}
}

// rewrite has programs write again what a power cut has taken from a node, where their part was not final.
func (g *gang) rewrite(tb testing.TB, of checkpoint.Ref) {
	tb.Helper()
	parts, err := open(tb, g.shared).LookAtParts(tb.Context(), of)
	if err != nil {
		tb.Fatal(err)
	}
	if parts.Complete {
		return
	}
	other := &gang{shared: g.shared, own: [2]*faultfs.FS{faultfs.New(), faultfs.New()}}
	for _, n := range parts.Missing() {
		other.own[n] = g.own[n]
	}
	if parts.Count == 0 {
		other.own = g.own
	}
	other.write(tb, of.Step)
}

// TestPartsAtEveryMoment does a whole commit, or begins a new epoch, before every operation of one: one checkpoint, or none that a newer epoch sees appear.
func TestPartsAtEveryMoment(t *testing.T) {
	t.Parallel()
	of := ref(3, 20)
	for _, fence := range []bool{false, true} {
		for at, over := 1, false; !over; at++ {
			g := newGang(t)
			var inner error
			seen, busy := false, false
			over = true
			g.shared.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
				if busy || n != at {
					return
				}
				busy, over = true, false
				if !fence {
					inner = g.commit(t, of)
					return
				}
				s := open(t, g.shared)
				if inner = s.Fence(t.Context(), 4); inner == nil {
					m, _, err := s.Latest(t.Context())
					seen = err == nil && m.Ref() == of
				}
			}})
			err := g.commit(t, of)
			g.shared.Arm(faultfs.Plan{})
			if inner != nil || !fence && err != nil || fence && err != nil && !errors.Is(err, checkpoint.ErrFenced) {
				t.Fatalf("at %d: %v, the other one: %v", at, err, inner)
			}
			m, _, lerr := open(t, g.shared).Latest(t.Context())
			if lerr != nil || !fence && m.Ref() != of || fence && !over && seen != (m.Ref() == of) || (err == nil) != (m.Ref() == of) {
				t.Fatalf("at %d, fence %t: commit says %v; seen then %t, now %v, %v", at, fence, err, seen, m.Ref(), lerr)
			}
			wantFiles(t, open(t, g.shared), g.shared, m.Ref())
		}
	}
}

// TestPartsThatDisagree: other bytes under the same name, or a name that is a file here and a directory there, are refused for good, naming path and nodes.
func TestPartsThatDisagree(t *testing.T) {
	t.Parallel()
	for name, disagree := range map[string]func(g *gang) (want string){
		"bytes": func(g *gang) string {
			put(t, g.own[1], "tmp-20/model.pt", content(21, 1))
			return `"model.pt" of nodes n1 and n2`
		},
		"size": func(g *gang) string { put(t, g.own[1], "tmp-20/empty", []byte{1}); return `"empty" of nodes n1 and n2` },
		"a directory": func(g *gang) string {
			put(t, g.own[1], "tmp-20/model.pt/x", nil)
			put(t, g.own[0], "tmp-20/model.pt.old", nil)
			return `"model.pt" is a file of node n1 and a directory of node n2`
		},
	} {
		g := newGang(t)
		want := disagree(g)
		for range 2 {
			if err := g.commit(t, ref(3, 20)); !errors.Is(err, checkpoint.ErrConflict) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
		wantFiles(t, open(t, g.shared), g.shared, ref(3, 10))
		g.write(t, 30)
		if err := g.commit(t, ref(3, 30)); err != nil {
			t.Errorf("%s: a later step: %v", name, err)
		}
		wantFiles(t, open(t, g.shared), g.shared, ref(3, 30))
	}
}

// TestPartsOfOddKinds: a node that has nothing, a gang that has nothing, names that cannot be, links.
func TestPartsOfOddKinds(t *testing.T) {
	t.Parallel()
	g := newGang(t)
	of, s := ref(3, 20), open(t, g.shared)
	putFiles(t, g.own[0], "tmp-20", 20)
	r := g.part(of, 1)
	r.Empty = true
	if _, err := s.CommitPart(t.Context(), open(t, g.own[1]), r); err != nil {
		t.Fatal(err)
	}
	if err := s.RefusePart(of, 0, 2, "its disk is full"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.JoinParts(t.Context(), of); err == nil || !strings.Contains(err.Error(), "node 0 says: its disk is full") {
		t.Errorf("one node is missing: %v", err)
	}
	err := g.commitPart(t, of, 0)
	if err == nil {
		_, err = s.JoinParts(t.Context(), of)
	}
	if err == nil {
		err = s.DrainPart(t.Context(), of, 0, g.source(of, 0), nil)
	}
	if err == nil {
		_, _, err = s.SettleParts(t.Context(), of)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s, g.shared, of)
	for _, name := range []string{"a\\b", "bad\xff", strings.Repeat("x", checkpoint.MaxPathBytes+1)} {
		put(t, g.own[0], "tmp-30/"+name, nil)
		if err := g.commitPart(t, ref(3, 30), 0); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("name %.20q: %v", name, err)
		}
		g.own[0] = faultfs.New()
	}
	for _, from := range []string{"parts", checkpoint.PartDir(of, 0, 2), "../x", ""} {
		r := g.part(ref(3, 30), 0)
		r.From = from
		if _, err := s.CommitPart(t.Context(), open(t, g.own[0]), r); !errors.Is(err, checkpoint.ErrInvalid) {
			t.Errorf("from %q: %v", from, err)
		}
	}
	if err := g.commitPart(t, ref(3, 30), 0); !errors.Is(err, checkpoint.ErrIncomplete) {
		t.Errorf("no such directory: %v", err)
	}
}

// TestPartsAreVerifiedOnTheirWay: a flipped bit on the node's disk, or a full shared storage, commits nothing, and leaves no file; another source mends it.
func TestPartsAreVerifiedOnTheirWay(t *testing.T) {
	t.Parallel()
	g := newGang(t)
	of, s := ref(3, 20), open(t, g.shared)
	for n := range 2 {
		if err := g.commitPart(t, of, n); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.JoinParts(t.Context(), of); err != nil {
		t.Fatal(err)
	}
	file := checkpoint.PartDir(of, 0, 2) + "/model.pt"
	if err := g.own[0].Flip(file, testChunk+7, 2); err != nil {
		t.Fatal(err)
	}
	var damage *checkpoint.CorruptError
	if err := g.commit(t, of); !errors.As(err, &damage) {
		t.Errorf("a flipped bit: %v", err)
	}
	if err := g.own[0].Flip(file, testChunk+7, 2); err != nil {
		t.Fatal(err)
	}
	g.shared.Arm(faultfs.Plan{Capacity: 1})
	if err := g.commit(t, of); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("no room on the shared storage: %v", err)
	}
	g.shared.Arm(faultfs.Plan{})
	for _, name := range g.shared.Names() {
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("%s is left", name)
		}
	}
	wantFiles(t, s, g.shared, ref(3, 10))
	if err := g.commit(t, of); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, s, g.shared, of)
}

// TestForgedPartsAreRefused: with a key a part that somebody else has written, or changed, is not joined.
func TestForgedPartsAreRefused(t *testing.T) {
	t.Parallel()
	key, err := checkpoint.ParseKey([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	g := newGang(t)
	of := ref(3, 20)
	s, err := checkpoint.Open(checkpoint.Config{FS: g.shared, Job: testJob, ChunkBytes: testChunk, Key: key, AcceptUnauthenticated: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CommitPart(t.Context(), open(t, g.own[0]), g.part(of, 0)); err != nil {
		t.Fatal(err)
	}
	if err := g.commitPart(t, of, 1); err != nil { // has no key
		t.Fatal(err)
	}
	if _, err := s.JoinParts(t.Context(), of); !errors.Is(err, checkpoint.ErrUnauthenticated) {
		t.Errorf("joined with a part of nobody: %v", err)
	}
}

// TestHoldersOfAPart: who has a copy can be asked.
func TestHoldersOfAPart(t *testing.T) {
	t.Parallel()
	g := newGang(t)
	of, s := ref(3, 20), open(t, g.shared)
	if err := g.commitPart(t, of, 0); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"n1", "n-2"} {
		if err := s.HoldPart(of, 0, 2, node, node+":1"); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.PartHolders(of, 0, 2); err != nil || len(got) != 2 || got["n-2"] != "n-2:1" {
		t.Errorf("held by %v, %v", got, err)
	}
	if got, err := s.PartHolders(of, 1, 2); err != nil || len(got) != 0 {
		t.Errorf("the other is held by %v, %v", got, err)
	}
	if err := s.HoldPart(of, 0, 2, "../x", "a"); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("a node's name that leads elsewhere: %v", err)
	}
	if r, i, n, ok := checkpoint.ParsePartDir(checkpoint.PartDir(of, 3, 12)); !ok || r != of || i != 3 || n != 12 {
		t.Errorf("%v, %d of %d, %t", r, i, n, ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.JoinParts(ctx, of); err == nil {
		t.Error("cancelled, and joined")
	}
}

// TestALateDrainerHindersNobody: a settling is cut short when the files are in place, and a drainer that came late begins a directory of the old name again.
func TestALateDrainerHindersNobody(t *testing.T) {
	t.Parallel()
	g := newGang(t)
	of := ref(3, 20)
	gathered := ""
	g.shared.Arm(faultfs.Plan{Before: func(_ int, op, name string) {
		if op == "rename" && strings.HasPrefix(name, "tmp-drain-parts-") && !strings.Contains(name, "/") {
			gathered = name
			g.shared.Arm(faultfs.Plan{FailAt: 3, Err: syscall.EIO}) // this rename, a sync, and then
		}
	}})
	if err := g.commit(t, of); !errors.Is(err, syscall.EIO) || gathered == "" {
		t.Fatalf("nothing failed: %v, %q", err, gathered)
	}
	g.shared.Arm(faultfs.Plan{})
	wantFiles(t, open(t, g.shared), g.shared, ref(3, 10))
	put(t, g.shared, gathered+"/empty", nil)
	if err := g.commit(t, of); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, open(t, g.shared), g.shared, of)
}
