package checkpoint_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// relaunch is what a job does from one launch on, with all that it reads: it resumes from what is there, saves, and collects.
func relaunch(tb testing.TB, s *checkpoint.Store, epoch, step uint64) (resumed checkpoint.Ref, skipped []checkpoint.Skipped, err error) {
	if err := s.Fence(tb.Context(), epoch); err != nil {
		return resumed, nil, err
	}
	m, skipped, err := s.Latest(tb.Context())
	if err != nil {
		return resumed, skipped, err
	}
	if err := s.ReadTensor(tb.Context(), m, "w", make([]float32, testLen)); err != nil {
		return resumed, skipped, err
	}
	if err := save(tb.Context(), s, ref(epoch, step), 2); err != nil {
		return m.Ref(), skipped, err
	}
	_, err = s.Collect(tb.Context(), checkpoint.CollectRequest{Epoch: epoch, Keep: 1})
	return m.Ref(), skipped, err
}

// TestErrorsOfAllKinds lets each operation of a launch fail once, in ways that storage fails. Nothing is lost; and an error that says nothing
// of the bytes never makes a job go on from an older step: it is told.
func TestErrorsOfAllKinds(t *testing.T) {
	t.Parallel()
	disk, s := worldBefore(t)
	disk.Arm(faultfs.Plan{})
	if _, _, err := relaunch(t, s, 2, 21); err != nil {
		t.Fatal(err)
	}
	total := disk.Ops()
	for _, fault := range []syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.EACCES, syscall.ENOSPC} {
		t.Run(fault.Error(), func(t *testing.T) {
			t.Parallel()
			skips := 0
			for at := 1; at <= total; at++ {
				disk, s := worldBefore(t)
				disk.Arm(faultfs.Plan{FailAt: at, Err: fault})
				resumed, skipped, err := relaunch(t, s, 2, 21)
				disk.Arm(faultfs.Plan{})
				where := fmt.Sprintf("operation %d, which said %v", at, err)
				var full *checkpoint.NoSpaceError
				switch {
				case err != nil && !errors.Is(err, fault):
					t.Fatalf("%s: it hides its cause", where)
				case errors.Is(err, checkpoint.ErrNone), errors.Is(err, checkpoint.ErrAllBad):
					t.Fatalf("%s: nothing is damaged", where)
				case fault == syscall.ENOSPC && errors.As(err, &full) && full.Bytes < 0:
					t.Fatalf("%s: it does not say how much room it needs", where)
				case resumed != ref(1, 20) && resumed != (checkpoint.Ref{}) && (fault != syscall.EIO || len(skipped) == 0):
					t.Fatalf("%s: went on from %v, skipped %v", where, resumed, skipped)
				}
				skips += len(skipped)
				if got := latest(t, open(t, disk)); got != ref(2, 21) && (err == nil || got != ref(1, 20)) {
					t.Fatalf("%s: latest is %v", where, got)
				}
				if _, _, err := relaunch(t, s, 3, 22); err != nil {
					t.Fatalf("%s: next launch: %v", where, err)
				}
				wantLatest(t, s, ref(3, 22))
			}
			if (skips > 0) != (fault == syscall.EIO) {
				t.Errorf("%d times an older one was taken", skips)
			}
		})
	}
}

// TestStaleForGood: a handle that stays stale is told, not taken for damage.
func TestStaleForGood(t *testing.T) {
	t.Parallel()
	for op, name := range map[string]string{"open": ref(1, 20).String() + "/MANIFEST.json", "read": ref(1, 20).String() + "/shard-0001-of-0002.glck"} {
		disk, _ := worldBefore(t)
		s := open(t, failing{disk, op, name, syscall.ESTALE})
		if m, skipped, err := s.Latest(t.Context()); !errors.Is(err, syscall.ESTALE) || len(skipped) > 0 {
			t.Errorf("%s of %s: latest is %v, skipped %v, %v", op, name, m.Ref(), skipped, err)
		}
		if op == "open" {
			continue // without its manifest nobody knows whether it is complete
		}
		s = open(t, failing{disk, op, name, syscall.EIO}) // a bad block
		if m, skipped, err := s.Latest(t.Context()); err != nil || m.Ref() != ref(1, 10) || len(skipped) != 1 {
			t.Errorf("%s of %s: latest is %v, skipped %v, %v", op, name, m.Ref(), skipped, err)
		}
	}
}

// failing is a directory in which one file can not be opened, or not be read.
type failing struct {
	*faultfs.FS
	op, name string
	err      error
}

func (f failing) Open(name string) (checkpoint.ReadFile, error) {
	if name == f.name && f.op == "open" {
		return nil, f.err
	}
	file, err := f.FS.Open(name)
	if name == f.name && err == nil {
		return unreadable{file, f.err}, nil
	}
	return file, err
}

type unreadable struct {
	checkpoint.ReadFile
	err error
}

func (u unreadable) ReadAt([]byte, int64) (int, error) { return 0, u.err }

// TestClocksThatDiffer: the clocks of the machines that write are hours apart and go back. What is newest, and what stays, is by epoch and step alone.
func TestClocksThatDiffer(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	now := time.Unix(1_790_000_000, 0)
	clocks := []time.Duration{5 * time.Hour, -5 * time.Hour, 0, 300 * 24 * time.Hour, -1_000_000 * time.Hour}
	for i, off := range clocks {
		r := ref(1, uint64(i+1)) //nolint:gosec // from 0
		if i == len(clocks)-1 {
			mustFence(t, s, 2)
			r.Epoch = 2
		}
		for rank := range 2 {
			if _, err := s.WriteShard(t.Context(), shard(r, rank, 2)); err != nil {
				t.Fatal(err)
			}
		}
		c := commitOf(r, 2)
		c.SavedAt = now.Add(off)
		if m, err := s.Commit(t.Context(), c); err != nil || m.Saved().Unix() != c.SavedAt.Unix() {
			t.Fatalf("saved at %v: %v, %v", c.SavedAt, m.Saved(), err)
		}
		wantLatest(t, open(t, disk), r)
	}
	// Who collects is an hour ahead of who reads: a lease holds for what is left of it, and steps go oldest first.
	if _, err := s.Lease(t.Context(), ref(1, 1), "reader", now.Add(6*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 2, Keep: 2, Now: now.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(steps(t, s)); got != "[5 4 1]" {
		t.Errorf("%s stay, want the newest two by epoch and step, and what is read", got)
	}
}
