package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// tiers is a gang of two nodes with one rank each: the directory that both share, and each one's own disk.
type tiers struct {
	shared *faultfs.FS
	own    [2]*faultfs.FS
	fell   []error
	as     checkpoint.Compression
}

// node gives the store of a node's rank, as a process that has just begun has it.
func (c *tiers) node(tb testing.TB, n int) *checkpoint.Store {
	tb.Helper()
	s, err := checkpoint.Open(checkpoint.Config{
		FS: c.shared, Job: testJob, ChunkBytes: testChunk, Compress: c.as,
		Local: &checkpoint.Local{FS: c.own[n], FellBack: func(err error) { c.fell = append(c.fell, err) }},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// twoNodes has step 10 complete on the shared directory.
func twoNodes(tb testing.TB) *tiers {
	tb.Helper()
	shared, s := begun(tb, 1)
	mustSave(tb, s, ref(1, 10), 2)
	return &tiers{shared: shared, own: [2]*faultfs.FS{faultfs.New(), faultfs.New()}}
}

// save has both ranks save a step on their own disks, and rank 0 say so.
func (c *tiers) save(tb testing.TB, of checkpoint.Ref) (checkpoint.Manifest, error) {
	for rank := range 2 {
		if _, err := c.node(tb, rank).WriteShard(tb.Context(), shard(of, rank, 2)); err != nil {
			return checkpoint.Manifest{}, err
		}
	}
	return c.node(tb, 0).Commit(tb.Context(), commitOf(of, 2))
}

// drain does what the agents of both nodes do in one look.
func (c *tiers) drain(tb testing.TB) error {
	var errs []error
	for n := range 2 {
		errs = append(errs, c.drainNode(tb.Context(), c.node(tb, n), c.own[n]))
	}
	return errors.Join(errs...)
}

func (c *tiers) drainNode(ctx context.Context, s *checkpoint.Store, own *faultfs.FS) error {
	var errs []error
	for _, name := range own.Names() {
		dir, file, _ := strings.Cut(name, "/")
		of, err := checkpoint.ParseRef(dir)
		if err != nil || file == "" || strings.HasSuffix(file, ".tmp") {
			continue
		}
		p, err := s.LocalShard(ctx, of, file)
		if err == nil && p.State == checkpoint.ShardWaiting {
			var src checkpoint.ReadFile
			if src, err = own.Open(name); err == nil {
				err = errors.Join(s.Drain(ctx, p, src, nil), src.Close())
			}
		}
		if err == nil && p.State != checkpoint.ShardOver {
			if _, _, err = s.Settle(ctx, of); errors.Is(err, checkpoint.ErrIncomplete) {
				err = nil
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// TestLocalFirst saves on two nodes' own disks, and drains one after the other.
func TestLocalFirst(t *testing.T) {
	t.Parallel()
	c := twoNodes(t)
	m, err := c.save(t, ref(1, 20))
	if err != nil || !m.Local || m.Ref() != ref(1, 20) {
		t.Fatalf("commit gave %v (local %v), %v", m.Ref(), m.Local, err)
	}
	s := c.node(t, 0)
	wantLatest(t, s, ref(1, 10)) // nothing may resume from what one lost node takes away
	for _, name := range c.shared.Names() {
		if strings.HasPrefix(name, ref(1, 20).String()) && strings.HasSuffix(name, ".glck") {
			t.Errorf("%s is on the shared directory before it was drained", name)
		}
	}
	if un, err := s.Undrained(t.Context()); err != nil || len(un) != 1 || un[0] != ref(1, 20) {
		t.Errorf("undrained: %v, %v", un, err)
	}
	if again, err := c.node(t, 0).Commit(t.Context(), commitOf(ref(1, 20), 2)); err != nil || !again.Local {
		t.Errorf("a repeated commit: local %v, %v", again.Local, err)
	}
	if err := c.drainNode(t.Context(), c.node(t, 1), c.own[1]); err != nil {
		t.Fatal(err)
	}
	if _, missing, err := s.Settle(t.Context(), ref(1, 20)); !errors.Is(err, checkpoint.ErrIncomplete) || len(missing) != 1 || missing[0] != "shard-0000-of-0002.glck" {
		t.Errorf("settled without rank 0: missing %v, %v", missing, err)
	}
	if err := c.drain(t); err != nil {
		t.Fatal(err)
	}
	wantLatest(t, open(t, c.shared), ref(1, 20)) // a node that has neither copy
	if len(c.fell) > 0 {
		t.Errorf("fell back: %v", c.fell)
	}
	for _, name := range c.shared.Names() {
		if strings.Contains(name, "local-") || strings.Contains(name, "LOCAL") || strings.Contains(name, "drained") {
			t.Errorf("%s is left", name)
		}
	}
	for n := range 2 {
		p, err := c.node(t, n).LocalShard(t.Context(), ref(1, 20), fmt.Sprintf("shard-000%d-of-0002.glck", n))
		if err != nil || p.State != checkpoint.ShardComplete {
			t.Errorf("node %d: state %v, %v", n, p.State, err)
		}
	}
}

// TestDrainingCutEverywhere cuts the power of the shared storage, or of a node, at each operation of a save and of its draining, and lets
// each fail once; the agents then look once more. What was there before stays; what was acknowledged as safe on the nodes' own disks arrives.
func TestDrainingCutEverywhere(t *testing.T) {
	t.Parallel()
	disks := map[string]func(*tiers) *faultfs.FS{
		"shared": func(c *tiers) *faultfs.FS { return c.shared }, "node 0": func(c *tiers) *faultfs.FS { return c.own[0] },
	}
	act := func(c *tiers) (acked bool, err error) {
		_, err = c.save(t, ref(1, 20))
		if err != nil {
			return false, err
		}
		return true, c.drain(t)
	}
	for name, disk := range disks {
		c := twoNodes(t)
		disk(c).Arm(faultfs.Plan{})
		if _, err := act(c); err != nil {
			t.Fatal(err)
		}
		total := disk(c).Ops()
		if total < 10 {
			t.Fatalf("%s: only %d operations: the test does not test", name, total)
		}
		check := func(c *tiers, where string, acked bool) {
			t.Helper()
			if err := c.drain(t); err != nil {
				t.Fatalf("%s: the next look: %v", where, err)
			}
			if got := latest(t, open(t, c.shared)); got != ref(1, 20) && (acked || got != ref(1, 10)) {
				t.Fatalf("%s: acknowledged %v, latest is %v\n%v", where, acked, got, c.shared.Names())
			}
		}
		for at := 1; at <= total+1; at++ {
			for _, mode := range []faultfs.CrashMode{faultfs.DropAll, faultfs.KeepNames, faultfs.Killed, faultfs.Some} {
				c := twoNodes(t)
				disk(c).Arm(faultfs.Plan{PowerAt: at})
				acked, err := act(c)
				disk(c).Crash(mode, rand.New(rand.NewPCG(1, uint64(at))))
				check(c, fmt.Sprintf("%s, mode %d: cut at operation %d of %d (%v)", name, mode, at, total, err), acked)
			}
			c := twoNodes(t)
			disk(c).Arm(faultfs.Plan{FailAt: at, Err: syscall.EIO})
			acked, err := act(c)
			disk(c).Arm(faultfs.Plan{})
			check(c, fmt.Sprintf("%s: operation %d of %d failed (%v)", name, at, total, err), acked)
		}
	}
}

// TestDrainingAndTheFence begins a new epoch before each operation of a draining: what is complete when it has begun is final.
func TestDrainingAndTheFence(t *testing.T) {
	t.Parallel()
	for at, done := 1, false; !done; at++ {
		c := twoNodes(t)
		if _, err := c.save(t, ref(1, 20)); err != nil {
			t.Fatal(err)
		}
		before := checkpoint.Ref{}
		done = true
		c.shared.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n == at {
				done = false
				s := open(t, c.shared)
				mustFence(t, s, 2)
				before = latest(t, s)
			}
		}})
		err := c.drain(t)
		c.shared.Arm(faultfs.Plan{})
		if err != nil && !errors.Is(err, checkpoint.ErrFenced) && !errors.Is(err, checkpoint.ErrIncomplete) {
			t.Fatalf("epoch 2 before operation %d: %v", at, err)
		}
		if done {
			break
		}
		if err := c.drain(t); err != nil && !errors.Is(err, checkpoint.ErrFenced) {
			t.Fatalf("epoch 2 before operation %d: the next look: %v", at, err)
		}
		wantLatest(t, open(t, c.shared), before)
		if _, err := c.save(t, ref(1, 30)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Fatalf("epoch 1 saves after epoch 2 has begun: %v", err)
		}
	}
}

// TestAFullLocalDiskFallsBack saves where the node's disk is full, and where there is no room by the agent's word.
func TestAFullLocalDiskFallsBack(t *testing.T) {
	t.Parallel()
	for _, as := range []checkpoint.Compression{checkpoint.NoCompression, checkpoint.Zstd} {
		fallsBack(t, as)
	}
}

func fallsBack(t *testing.T, as checkpoint.Compression) {
	t.Helper()
	c := twoNodes(t)
	c.as = as
	c.own[0].Arm(faultfs.Plan{Capacity: testChunk})
	m, err := c.save(t, ref(1, 20))
	if err != nil || !m.Local || len(c.fell) != 1 || !errors.Is(c.fell[0], syscall.ENOSPC) {
		t.Fatalf("one full disk: local %v, %v, fell back: %v", m.Local, err, c.fell)
	}
	c.own[1].Arm(faultfs.Plan{Capacity: testChunk})
	if m, err := c.save(t, ref(1, 30)); err != nil || m.Local {
		t.Fatalf("two full disks: local %v, %v", m.Local, err)
	}
	wantLatest(t, open(t, c.shared), ref(1, 30))
	if err := c.drain(t); err != nil {
		t.Fatal(err)
	}
	if refs, err := open(t, c.shared).List(t.Context()); err != nil || len(refs) != 3 {
		t.Errorf("complete: %v, %v; want 3", refs, err)
	}
}

// TestTheNearCopyIsReadFirst damages one of the two copies after the other.
func TestTheNearCopyIsReadFirst(t *testing.T) {
	t.Parallel()
	c := twoNodes(t)
	if _, err := c.save(t, ref(1, 20)); err != nil {
		t.Fatal(err)
	}
	if err := c.drain(t); err != nil {
		t.Fatal(err)
	}
	s := c.node(t, 0)
	m, err := s.Load(t.Context(), ref(1, 20))
	if err != nil {
		t.Fatal(err)
	}
	file := ref(1, 20).String() + "/shard-0000-of-0002.glck"
	if err := c.shared.Flip(file, 2*testChunk-100, 3); err != nil {
		t.Fatal(err)
	}
	wantContent(t, s, m) // from the node's own disk
	// Other nodes have none: for them it is damaged, and all must resume from the same.
	wantLatest(t, s, ref(1, 10))
	if err := c.shared.Flip(file, 2*testChunk-100, 3); err != nil {
		t.Fatal(err)
	}
	if err := c.own[0].Flip(file, 2*testChunk-100, 3); err != nil {
		t.Fatal(err)
	}
	wantContent(t, c.node(t, 0), m) // from the shared directory
	wantLatest(t, c.node(t, 0), ref(1, 20))
}
