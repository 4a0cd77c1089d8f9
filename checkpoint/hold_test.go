package checkpoint_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// steps gives the steps of what is there, the newest first.
func steps(tb testing.TB, s *checkpoint.Store) []uint64 {
	tb.Helper()
	refs, err := s.List(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	var out []uint64
	for _, r := range refs {
		out = append(out, r.Step)
	}
	return out
}

// saved gives a store with checkpoints of steps 1 to n; the loss is lowest in the middle.
func saved(tb testing.TB, n uint64) (*faultfs.FS, *checkpoint.Store) {
	tb.Helper()
	disk, s := begun(tb, 1)
	for step := uint64(1); step <= n; step++ {
		r := ref(1, step)
		if _, err := s.WriteShard(tb.Context(), shard(r, 0, 1)); err != nil {
			tb.Fatal(err)
		}
		c := commitOf(r, 1)
		c.Metrics = map[string]float64{"loss": (float64(step) - float64(n)/2) * (float64(step) - float64(n)/2)}
		if _, err := s.Commit(tb.Context(), c); err != nil {
			tb.Fatal(err)
		}
	}
	return disk, s
}

func TestWhatCollectKeeps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		r    checkpoint.CollectRequest
		pin  uint64
		want []uint64
	}{
		"newest":      {r: checkpoint.CollectRequest{Keep: 2}, want: []uint64{8, 7}},
		"every":       {r: checkpoint.CollectRequest{Keep: 1, Every: 3}, want: []uint64{8, 6, 3}},
		"lowest":      {r: checkpoint.CollectRequest{Keep: 1, Best: []checkpoint.Best{{Metric: "loss", Lowest: true, Count: 2}}}, want: []uint64{8, 5, 4}},
		"highest":     {r: checkpoint.CollectRequest{Keep: 2, Best: []checkpoint.Best{{Metric: "loss", Count: 1}}}, want: []uint64{8, 7, 1}},
		"no metric":   {r: checkpoint.CollectRequest{Keep: 1, Best: []checkpoint.Best{{Metric: "acc", Count: 1}}}, want: []uint64{8}},
		"pinned":      {r: checkpoint.CollectRequest{Keep: 1}, pin: 2, want: []uint64{8, 2}},
		"dry run":     {r: checkpoint.CollectRequest{Keep: 1, DryRun: true}, want: []uint64{8, 7, 6, 5, 4, 3, 2, 1}},
		"keep beyond": {r: checkpoint.CollectRequest{Keep: 9}, want: []uint64{8, 7, 6, 5, 4, 3, 2, 1}},
	} {
		_, s := saved(t, 8)
		if c.pin > 0 {
			if err := s.Pin(t.Context(), ref(1, c.pin)); err != nil {
				t.Fatal(err)
			}
		}
		c.r.Epoch = 1
		out, err := s.Collect(t.Context(), c.r)
		if got := steps(t, s); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v stay, %v; want %v", name, got, err, c.want)
		}
		if c.r.DryRun && len(out.Removed) != 7 {
			t.Errorf("%s: would remove %v, want 7", name, out.Removed)
		}
	}
}

func TestLeaseHoldsUntilItRunsOut(t *testing.T) {
	t.Parallel()
	_, s := saved(t, 4)
	now := time.Unix(1_790_000_000, 0)
	release, err := s.Lease(t.Context(), ref(1, 1), "host/../7", now.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lease(t.Context(), ref(1, 2), "dead", now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	collect := func(at time.Time) []uint64 {
		if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1, Now: at}); err != nil {
			t.Fatal(err)
		}
		return steps(t, s)
	}
	if got := collect(now); !slices.Equal(got, []uint64{4, 2, 1}) {
		t.Errorf("with two leases %v stay", got)
	}
	if got := collect(now.Add(2 * time.Minute)); !slices.Equal(got, []uint64{4, 1}) {
		t.Errorf("after one ran out %v stay", got)
	}
	if err := s.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 1), Force: true, Now: now}); !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("remove what is being read: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if got := collect(now); !slices.Equal(got, []uint64{4}) {
		t.Errorf("after release %v stay", got)
	}
	if _, err := s.Lease(t.Context(), ref(1, 1), "late", now); !errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("lease of what is gone: %v", err)
	}
}

// TestLeaseAtEveryMomentOfACollection takes a lease before every single operation: whoever got one can read to the end.
func TestLeaseAtEveryMomentOfACollection(t *testing.T) {
	t.Parallel()
	_, calm := saved(t, 3)
	_ = calm
	for at, total := 1, 40; at <= total; at++ {
		disk, s := saved(t, 3)
		reader := open(t, disk)
		var leased bool
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n == at {
				_, err := reader.Lease(t.Context(), ref(1, 1), "r", time.Unix(2_000_000_000, 0))
				leased = err == nil
				if err != nil && !errors.Is(err, checkpoint.ErrNone) {
					t.Errorf("operation %d: %v", at, err)
				}
			}
		}})
		if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1}); err != nil {
			t.Fatalf("operation %d: %v", at, err)
		}
		if at == 1 {
			total = disk.Ops()
		}
		disk.Arm(faultfs.Plan{})
		if !leased {
			continue
		}
		m, err := reader.Load(t.Context(), ref(1, 1))
		if err != nil {
			t.Fatalf("operation %d: leased, and gone: %v", at, err)
		}
		wantContent(t, reader, m)
	}
}

func TestRemoveRefusesWhatIsNeeded(t *testing.T) {
	t.Parallel()
	_, s := saved(t, 3)
	remove := func(step uint64, force bool) error {
		return s.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, step), Force: force})
	}
	if err := remove(3, false); !errors.Is(err, checkpoint.ErrNewest) {
		t.Errorf("the newest: %v", err)
	}
	if err := s.Pin(t.Context(), ref(1, 1)); err != nil {
		t.Fatal(err)
	}
	if err := remove(1, false); !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("a pinned one: %v", err)
	}
	if err := remove(9, false); !errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("a missing one: %v", err)
	}
	if _, err := s.WriteShard(t.Context(), shard(ref(1, 4), 0, 2)); err != nil {
		t.Fatal(err)
	}
	if err := remove(4, true); !errors.Is(err, checkpoint.ErrIncomplete) {
		t.Errorf("one being written: %v", err)
	}
	for _, step := range []uint64{2, 1, 3} {
		if err := remove(step, step != 2); err != nil {
			t.Errorf("remove step %d: %v", step, err)
		}
	}
	if got := steps(t, s); len(got) > 0 {
		t.Errorf("%v stay", got)
	}
	if err := s.Pin(t.Context(), ref(1, 1)); !errors.Is(err, checkpoint.ErrNone) {
		t.Errorf("pin what is gone: %v", err)
	}
}

func TestInventoryTellsAll(t *testing.T) {
	t.Parallel()
	disk, s := saved(t, 3)
	if err := s.Pin(t.Context(), ref(1, 1)); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_790_000_000, 0)
	if _, err := s.Lease(t.Context(), ref(1, 2), "me", now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := disk.Flip(ref(1, 3).String()+"/MANIFEST.json", 40, 1); err != nil {
		t.Fatal(err)
	}
	found, err := s.Inventory(t.Context(), now)
	if err != nil || len(found) != 3 {
		t.Fatalf("%+v, %v", found, err)
	}
	if found[0].Err == nil || found[0].Manifest != nil || found[1].Reader != "me" || !found[2].Pinned || found[2].Manifest == nil {
		t.Errorf("inventory is %+v", found)
	}
	if job, err := checkpoint.JobOf(disk); err != nil || job != testJob {
		t.Errorf("job is %q, %v", job, err)
	}
}
