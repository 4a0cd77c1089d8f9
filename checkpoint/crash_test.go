package checkpoint_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// life is what a job does from one launch on: begin an epoch, save a step, collect.
func life(tb testing.TB, s *checkpoint.Store, epoch, step uint64) error {
	if err := s.Fence(tb.Context(), epoch); err != nil {
		return err
	}
	if err := save(tb.Context(), s, ref(epoch, step), 2); err != nil {
		return err
	}
	_, err := s.Collect(tb.Context(), checkpoint.CollectRequest{Epoch: epoch, Keep: 1})
	return err
}

// worldBefore is a disk with a complete checkpoint, an older one, and a half-written one of epoch 1.
func worldBefore(tb testing.TB) (*faultfs.FS, *checkpoint.Store) {
	tb.Helper()
	disk, s := begun(tb, 1)
	mustSave(tb, s, ref(1, 10), 2)
	mustSave(tb, s, ref(1, 20), 2)
	if _, err := s.WriteShard(tb.Context(), shard(ref(1, 30), 0, 2)); err != nil {
		tb.Fatal(err)
	}
	return disk, s
}

// TestPowerCutAtEveryOperation cuts the power at each operation of a launch, in each way a disk can lose what was not synced.
func TestPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	disk, s := worldBefore(t)
	disk.Arm(faultfs.Plan{})
	if err := life(t, s, 2, 21); err != nil {
		t.Fatal(err)
	}
	total := disk.Ops()
	if total < 50 {
		t.Fatalf("only %d operations: the test does not test", total)
	}
	for mode, tries := range map[faultfs.CrashMode]int{faultfs.DropAll: 1, faultfs.KeepNames: 1, faultfs.Some: 5} {
		t.Run(fmt.Sprintf("mode%d", mode), func(t *testing.T) {
			t.Parallel()
			for at := 1; at <= total+1; at++ {
				for try := range tries {
					powerCut(t, mode, at, uint64(try))
				}
			}
		})
	}
}

func powerCut(t *testing.T, mode faultfs.CrashMode, at int, seed uint64) {
	t.Helper()
	disk, s := worldBefore(t)
	disk.Arm(faultfs.Plan{PowerAt: at})
	err := life(t, s, 2, 21)
	where := fmt.Sprintf("power cut at operation %d, seed %d (launch said: %v)", at, seed, err)
	disk.Crash(mode, rand.New(rand.NewPCG(seed, uint64(at))))
	s = open(t, disk)
	m, skipped, lerr := s.Latest(t.Context())
	if lerr != nil || len(skipped) != 0 {
		t.Fatalf("%s: latest: %v, skipped %v\n%v", where, lerr, skipped, disk.Names())
	}
	got := m.Ref()
	if got != ref(1, 20) && got != ref(2, 21) {
		t.Fatalf("%s: latest is %v", where, got)
	}
	if err == nil && got != ref(2, 21) {
		t.Fatalf("%s: the commit was acknowledged, and lost", where)
	}
	wantContent(t, s, m)
	// The next launch works on whatever is left, and cleans it up.
	if err := life(t, s, 3, 22); err != nil {
		t.Fatalf("%s: next launch: %v", where, err)
	}
	wantLatest(t, s, ref(3, 22))
	if refs, err := s.List(t.Context()); err != nil || len(refs) != 1 {
		t.Fatalf("%s: after collection %v, %v; want one checkpoint", where, refs, err)
	}
	for _, name := range disk.Names() {
		if want := ref(3, 22).String() + "/"; len(name) > 5 && name[:5] == "step-" && name[:min(len(want), len(name))] != want {
			t.Fatalf("%s: garbage stays: %s", where, name)
		}
	}
}

// TestAcknowledgedCommitSurvives cuts the power right after Commit has returned.
func TestAcknowledgedCommitSurvives(t *testing.T) {
	t.Parallel()
	for _, mode := range []faultfs.CrashMode{faultfs.DropAll, faultfs.KeepNames} {
		disk, s := worldBefore(t)
		mustSave(t, s, ref(1, 40), 3)
		disk.Crash(mode, nil)
		wantLatest(t, open(t, disk), ref(1, 40))
	}
}

// TestErrorAtEveryOperation lets each operation fail once with an I/O error; the process lives on.
func TestErrorAtEveryOperation(t *testing.T) {
	t.Parallel()
	disk, s := worldBefore(t)
	disk.Arm(faultfs.Plan{})
	if err := life(t, s, 2, 21); err != nil {
		t.Fatal(err)
	}
	total := disk.Ops()
	for at := 1; at <= total; at++ {
		disk, s := worldBefore(t)
		disk.Arm(faultfs.Plan{FailAt: at, Err: syscall.EIO})
		err := life(t, s, 2, 21)
		disk.Arm(faultfs.Plan{})
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatalf("operation %d: error hides its cause: %v", at, err)
		}
		if got := latest(t, s); got != ref(2, 21) && (err == nil || got != ref(1, 20)) {
			t.Fatalf("operation %d (%v): latest is %v", at, err, got)
		}
		if err := life(t, s, 2, 22); err != nil { // the same process tries the next step
			t.Fatalf("operation %d: next step: %v", at, err)
		}
		wantLatest(t, s, ref(2, 22))
	}
}
