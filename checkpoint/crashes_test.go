package checkpoint_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// crashCase is something that is cut short at each of its operations.
type crashCase struct {
	// modes are ways to cut, and how often each operation is cut so; nil: nothing unsynced stays, everything does, and some of it by chance.
	modes map[faultfs.CrashMode]int
	world func(testing.TB) (*faultfs.FS, *checkpoint.Store) // before
	act   func(testing.TB, *checkpoint.Store) error
	// check looks at what is left, from a new process; err is what act said.
	check func(t *testing.T, where string, s *checkpoint.Store, disk *faultfs.FS, err error)
}

// cutEverywhere cuts the power at each operation, in each way of losing what was not synced, and kills the process there; and lets each
// operation fail once.
func (c *crashCase) cutEverywhere(t *testing.T) {
	t.Helper()
	disk, s := c.world(t)
	disk.Arm(faultfs.Plan{})
	if err := c.act(t, s); err != nil {
		t.Fatal(err)
	}
	total, modes := disk.Ops(), c.modes
	if modes == nil {
		modes = map[faultfs.CrashMode]int{faultfs.DropAll: 1, faultfs.Killed: 1, faultfs.Some: 1}
	}
	for mode, tries := range modes {
		for at := 1; at <= total+1; at++ {
			for try := range tries {
				disk, s := c.world(t)
				disk.Arm(faultfs.Plan{PowerAt: at})
				err := c.act(t, s)
				disk.Crash(mode, rand.New(rand.NewPCG(uint64(try), uint64(at))))
				c.check(t, fmt.Sprintf("mode %d, try %d: cut at operation %d of %d, which said %v", mode, try, at, total, err), open(t, disk), disk, err)
			}
		}
	}
	for at := 1; at <= total; at++ {
		disk, s := c.world(t)
		disk.Arm(faultfs.Plan{FailAt: at, Err: syscall.EIO})
		err := c.act(t, s)
		disk.Arm(faultfs.Plan{})
		if err != nil && !errors.Is(err, syscall.EIO) {
			t.Fatalf("operation %d: error hides its cause: %v", at, err)
		}
		c.check(t, fmt.Sprintf("operation %d of %d failed, and it said %v", at, total, err), s, disk, err)
	}
}

// tunedLife is a launch of a fine-tuning: it resumes, saves a step that refers to an earlier one, and collects.
func tunedLife(tb testing.TB, s *checkpoint.Store, epoch, step uint64) error {
	if err := s.Fence(tb.Context(), epoch); err != nil {
		return err
	}
	if _, _, err := s.Latest(tb.Context()); err != nil {
		return err
	}
	if _, err := tune(tb.Context(), s, ref(epoch, step), 1); err != nil {
		return err
	}
	_, err := s.Collect(tb.Context(), checkpoint.CollectRequest{Epoch: epoch, Keep: 1})
	return err
}

// TestReferencesCutEverywhere: 10 holds the frozen weights, 20 refers to it, and 30 was begun, when a launch saves 21 and collects.
func TestReferencesCutEverywhere(t *testing.T) {
	t.Parallel()
	checks := 0
	c := crashCase{
		modes: map[faultfs.CrashMode]int{faultfs.KeepNames: 1, faultfs.Some: 1},
		world: func(tb testing.TB) (*faultfs.FS, *checkpoint.Store) {
			disk, s := begun(tb, 1)
			mustTune(tb, s, ref(1, 10), 1)
			mustTune(tb, s, ref(1, 20), 1)
			if _, err := s.WriteShard(tb.Context(), tuned(ref(1, 30), 0, 2)); err != nil {
				tb.Fatal(err)
			}
			return disk, s
		},
		act: func(tb testing.TB, s *checkpoint.Store) error { return tunedLife(tb, s, 2, 21) },
	}
	c.check = func(t *testing.T, where string, s *checkpoint.Store, disk *faultfs.FS, err error) {
		m, skipped, lerr := s.Latest(t.Context())
		if lerr != nil || len(skipped) > 0 || m.Ref() != ref(2, 21) && (err == nil || m.Ref() != ref(1, 20)) {
			t.Fatalf("%s: latest is %v, %v, skipped %v\n%v", where, m.Ref(), lerr, skipped, disk.Names())
		}
		wantTuned(t, s, m.Ref())
		if err := tunedLife(t, s, 3, 22); err != nil {
			t.Fatalf("%s: next launch: %v", where, err)
		}
		wantTuned(t, s, ref(3, 22))
		left, err := s.List(t.Context())
		if m := mustLoad(t, s, ref(3, 22)); err != nil || !slices.Equal(left, append([]checkpoint.Ref{ref(3, 22)}, m.Refs()...)) || len(left) > 2 {
			t.Fatalf("%s: %v stay, %v; want 22 and what it refers to, %v", where, left, err, m.Refs())
		}
		if checks++; checks%4 > 0 {
			return // the rest is the same at most of them, and takes its time
		}
		if err := life(t, s, 4, 23); err != nil { // refers to nothing
			t.Fatalf("%s: last launch: %v", where, err)
		}
		onlyDir(t, disk, ref(4, 23))
	}
	c.cutEverywhere(t)
}

// TestCollectionOfReferencesCutEverywhere collects checkpoints together with what they refer to.
func TestCollectionOfReferencesCutEverywhere(t *testing.T) {
	t.Parallel()
	c := crashCase{
		world: func(tb testing.TB) (*faultfs.FS, *checkpoint.Store) {
			disk, s := begun(tb, 1)
			for step := uint64(1); step <= 3; step++ {
				mustTune(tb, s, ref(1, step), 1)
			}
			mustSave(tb, s, ref(1, 4), 1)
			return disk, s
		},
		act: func(tb testing.TB, s *checkpoint.Store) error {
			_, err := s.Collect(tb.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1})
			return err
		},
		check: func(t *testing.T, where string, s *checkpoint.Store, disk *faultfs.FS, _ error) {
			refs, err := s.List(t.Context())
			if err != nil || len(refs) == 0 || refs[0] != ref(1, 4) {
				t.Fatalf("%s: %v, %v", where, refs, err)
			}
			for _, r := range refs { // all that can be seen is whole
				if m := mustLoad(t, s, r); s.Verify(t.Context(), m) != nil {
					t.Fatalf("%s: %v is not whole", where, r)
				}
			}
			collect(t, s, 1, 1)
			onlyDir(t, disk, ref(1, 4))
		},
	}
	c.cutEverywhere(t)
}

// TestCommitOfFilesCutEverywhere: a program's directory is committed, and the older one collected.
func TestCommitOfFilesCutEverywhere(t *testing.T) {
	t.Parallel()
	commit := func(tb testing.TB, s *checkpoint.Store) error {
		if _, err := s.CommitFiles(tb.Context(), filesOf(ref(1, 20))); err != nil {
			return err
		}
		_, err := s.Collect(tb.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1})
		return err
	}
	c := crashCase{
		world: func(tb testing.TB) (*faultfs.FS, *checkpoint.Store) {
			disk, s := begun(tb, 1)
			for _, step := range []uint64{10, 20} {
				putFiles(tb, disk, fmt.Sprintf("tmp-%d", step), step)
				disk.Crash(faultfs.Killed, nil) // what the program wrote is on the disk
				if step == 10 {
					if _, err := s.CommitFiles(tb.Context(), filesOf(ref(1, step))); err != nil {
						tb.Fatal(err)
					}
				}
			}
			return disk, s
		},
		act: commit,
		check: func(t *testing.T, where string, s *checkpoint.Store, disk *faultfs.FS, err error) {
			m, skipped, lerr := s.Latest(t.Context())
			if lerr != nil || len(skipped) > 0 || m.Ref() != ref(1, 20) && (err == nil || m.Ref() != ref(1, 10)) {
				t.Fatalf("%s: latest is %v, %v, skipped %v\n%v", where, m.Ref(), lerr, skipped, disk.Names())
			}
			if err := commit(t, s); err != nil { // the same call again ends what was begun
				t.Fatalf("%s: again: %v\n%v", where, err, disk.Names())
			}
			wantFiles(t, s, disk, ref(1, 20))
			onlyDir(t, disk, ref(1, 20))
		},
	}
	c.cutEverywhere(t)
}

// TestHoldsCutEverywhere pins step 1, leases and reads step 2, gives it back, and collects.
func TestHoldsCutEverywhere(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_790_000_000, 0)
	c := crashCase{
		world: func(tb testing.TB) (*faultfs.FS, *checkpoint.Store) { return saved(tb, 3) },
		act: func(tb testing.TB, s *checkpoint.Store) error {
			if err := s.Pin(tb.Context(), ref(1, 1)); err != nil {
				return err
			}
			release, err := s.Lease(tb.Context(), ref(1, 2), "reader", now.Add(time.Hour))
			if err != nil {
				return err
			}
			r := checkpoint.CollectRequest{Epoch: 1, Keep: 1, Now: now}
			if _, err := s.Collect(tb.Context(), r); err != nil {
				return err
			}
			m, err := s.Load(tb.Context(), ref(1, 2))
			if err == nil {
				err = s.ReadTensor(tb.Context(), m, "w", make([]float32, testLen))
			}
			if err := errors.Join(err, release()); err != nil {
				return err
			}
			_, err = s.Collect(tb.Context(), r)
			return err
		},
		check: func(t *testing.T, where string, s *checkpoint.Store, disk *faultfs.FS, err error) {
			left, lerr := s.List(t.Context())
			if lerr != nil || left[0] != ref(1, 3) || left[len(left)-1] != ref(1, 1) {
				t.Fatalf("%s: %v are left, %v: step 1 was pinned before anything was removed", where, left, lerr)
			}
			for _, r := range left {
				wantContent(t, s, mustLoad(t, s, r))
			}
			pinned := false
			for _, name := range disk.Names() {
				pinned = pinned || strings.HasPrefix(name, "pins/step-")
			}
			if err == nil && !pinned {
				t.Fatalf("%s: the pin is lost", where)
			}
			// A lease that its reader's death left behind ends by itself.
			if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 1, Keep: 1, Now: now.Add(2 * time.Hour)}); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			want := []uint64{3, 1}
			if !pinned {
				want = want[:1]
			}
			if got := steps(t, s); !slices.Equal(got, want) {
				t.Fatalf("%s: %v stay, want %v", where, got, want)
			}
			if err := s.Unpin(t.Context(), ref(1, 1)); err != nil {
				t.Fatal(err)
			}
			collect(t, s, 1, 1)
			onlyDir(t, disk, ref(1, 3))
		},
	}
	c.cutEverywhere(t)
}
