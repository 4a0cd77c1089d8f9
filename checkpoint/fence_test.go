package checkpoint_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

func TestLateWriterIsRefused(t *testing.T) {
	t.Parallel()
	disk, late := begun(t, 3)
	mustSave(t, late, ref(3, 10), 1)
	if _, err := late.WriteShard(t.Context(), shard(ref(3, 20), 0, 1)); err != nil {
		t.Fatal(err)
	}
	mustFence(t, open(t, disk), 4)
	_, werr := late.WriteShard(t.Context(), shard(ref(3, 30), 0, 1))
	_, cerr := late.Commit(t.Context(), commitOf(ref(3, 20), 1))
	_, gerr := late.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 3, Keep: 1})
	ferr := late.Fence(t.Context(), 3)
	for what, err := range map[string]error{"write": werr, "commit": cerr, "collect": gerr, "fence": ferr} {
		if !errors.Is(err, checkpoint.ErrFenced) {
			t.Errorf("late %s: %v, want ErrFenced", what, err)
		}
	}
	wantLatest(t, late, ref(3, 10))
	mustFence(t, late, 4) // the same epoch again changes nothing
}

func TestEpochMustBeBegun(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 3)
	if _, err := s.WriteShard(t.Context(), shard(ref(4, 1), 0, 1)); !errors.Is(err, checkpoint.ErrNotBegun) {
		t.Errorf("write: %v, want ErrNotBegun", err)
	}
	if err := s.Fence(t.Context(), 0); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("epoch 0: %v, want ErrInvalid", err)
	}
}

func TestFenceSurvivesPowerCut(t *testing.T) {
	t.Parallel()
	for _, mode := range []faultfs.CrashMode{faultfs.DropAll, faultfs.KeepNames} {
		disk, s := begun(t, 3)
		mustFence(t, s, 7)
		disk.Crash(mode, nil)
		if got, err := open(t, disk).Epoch(t.Context()); err != nil || got != 7 {
			t.Errorf("mode %d: epoch after power cut is %d, %v; want 7", mode, got, err)
		}
	}
}

// TestFenceAtEveryMomentOfACommit lets a newer epoch begin, and choose its checkpoint, before each single operation of a commit. The
// choice must stay true: the commit either came before, and is chosen, or is refused, and never seen.
func TestFenceAtEveryMomentOfACommit(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		disk, s := begun(t, 1)
		mustSave(t, s, ref(1, 10), 1)
		if _, err := s.WriteShard(t.Context(), shard(ref(1, 20), 0, 1)); err != nil {
			t.Fatal(err)
		}
		var chosen checkpoint.Ref
		fired := false
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n != at || fired {
				return
			}
			fired = true
			newer := open(t, disk)
			mustFence(t, newer, 2)
			chosen = latest(t, newer)
		}})
		_, err := s.Commit(t.Context(), commitOf(ref(1, 20), 1))
		disk.Arm(faultfs.Plan{})
		if !fired {
			if err != nil {
				t.Fatalf("undisturbed commit: %v", err)
			}
			if at < 10 {
				t.Fatalf("a commit has only %d operations: the test does not test", at)
			}
			return
		}
		if now := latest(t, open(t, disk)); now != chosen {
			t.Fatalf("fence before operation %d: chose %v, but later it is %v (commit said %v)", at, chosen, now, err)
		}
		if err == nil && chosen != ref(1, 20) {
			t.Fatalf("fence before operation %d: commit was acknowledged, but %v chosen", at, chosen)
		}
		if err != nil && !errors.Is(err, checkpoint.ErrFenced) {
			t.Fatalf("fence before operation %d: commit said %v, want ErrFenced", at, err)
		}
		// The newer epoch goes on undisturbed.
		mustSave(t, open(t, disk), ref(2, 11), 1)
		wantLatest(t, s, ref(2, 11))
	}
}

// TestCommitLooksAtTheFenceLast raises only the mark, as seen by a machine whose view of the directory is old: the sealed name is not there
// to stop the rename, the last look at the fence must.
func TestCommitLooksAtTheFenceLast(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	if _, err := s.WriteShard(t.Context(), shard(ref(1, 20), 0, 1)); err != nil {
		t.Fatal(err)
	}
	disk.Arm(faultfs.Plan{Before: func(_ int, op, name string) {
		if op == "sync" && strings.HasPrefix(name, ref(1, 20).String()+"/MANIFEST.json.") {
			if _, err := disk.Create("fence/epoch-2", false); err != nil {
				t.Error(err)
			}
		}
	}})
	if _, err := s.Commit(t.Context(), commitOf(ref(1, 20), 1)); !errors.Is(err, checkpoint.ErrFenced) {
		t.Errorf("commit: %v, want ErrFenced", err)
	}
	noHalfFiles(t, disk)
	wantLatest(t, s, checkpoint.Ref{})
}

// TestFenceAtEveryMomentOfAWrite does the same to a rank that writes its shard: whatever it says, it can not be committed.
func TestFenceAtEveryMomentOfAWrite(t *testing.T) {
	t.Parallel()
	for at := 1; ; at++ {
		disk, s := begun(t, 1)
		mustSave(t, s, ref(1, 10), 1)
		fired := false
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n == at && !fired {
				fired = true
				mustFence(t, open(t, disk), 2)
			}
		}})
		_, err := s.WriteShard(t.Context(), shard(ref(1, 20), 0, 1))
		disk.Arm(faultfs.Plan{})
		if !fired {
			if err != nil {
				t.Fatalf("undisturbed write: %v", err)
			}
			return
		}
		if err != nil && !errors.Is(err, checkpoint.ErrFenced) {
			t.Fatalf("fence before operation %d: write said %v, want ErrFenced or success", at, err)
		}
		if _, err := s.Commit(t.Context(), commitOf(ref(1, 20), 1)); !errors.Is(err, checkpoint.ErrFenced) {
			t.Fatalf("fence before operation %d: commit said %v, want ErrFenced", at, err)
		}
		wantLatest(t, s, ref(1, 10))
		mustSave(t, s, ref(2, 11), 1)
		if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 2, Keep: 1}); err != nil {
			t.Fatal(err)
		}
		onlyDir(t, disk, ref(2, 11))
	}
}

func TestNewerEpochWinsOverLaterStep(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	mustSave(t, s, ref(1, 500), 1)
	mustFence(t, s, 2)
	mustSave(t, s, ref(2, 410), 1) // resumed from an earlier step, as a person may ask for
	wantLatest(t, s, ref(2, 410))
	mustSave(t, s, ref(2, 420), 1)
	wantLatest(t, s, ref(2, 420))
}

// TestEpochsThatBeginTogether raises many fences at once: the highest holds, whoever writes last.
func TestEpochsThatBeginTogether(t *testing.T) {
	t.Parallel()
	dir, err := checkpoint.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const epochs = 20
	var wg sync.WaitGroup
	for e := uint64(1); e <= epochs; e++ {
		wg.Go(func() {
			err := open(t, dir).Fence(t.Context(), e)
			if err != nil && (e == epochs || !errors.Is(err, checkpoint.ErrFenced)) {
				t.Errorf("fence %d: %v", e, err)
			}
		})
	}
	wg.Wait()
	if got, err := open(t, dir).Epoch(t.Context()); err != nil || got != epochs {
		t.Errorf("epoch is %d, %v; want %d", got, err, epochs)
	}
}

func TestParseRef(t *testing.T) {
	t.Parallel()
	for _, r := range []checkpoint.Ref{ref(1, 0), ref(3, 120), ref(1<<63, 1<<63)} {
		if got, err := checkpoint.ParseRef(r.String()); err != nil || got != r {
			t.Errorf("parse %q: %v, %v", r, got, err)
		}
	}
	for _, s := range []string{"", "step-1.epoch-1", "step-0000000001.epoch-01", "step-0000000001.epoch-1.tmp", "step-000000000x.epoch-1", fmt.Sprint(ref(1, 1), "/..")} {
		if got, err := checkpoint.ParseRef(s); err == nil {
			t.Errorf("parse %q: %v, want an error", s, got)
		}
	}
}
