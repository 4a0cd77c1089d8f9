package storage

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func on(disk *faultfs.FS) func() (checkpoint.FS, error) {
	return func() (checkpoint.FS, error) { return disk, nil }
}

// look makes one probe and gives what is known then.
func look(t *testing.T, m *Monitor) Status {
	t.Helper()
	done := m.kick()
	if done == nil {
		t.Fatal("a probe is under way")
	}
	<-done
	m.tell()
	return m.Status(time.Now())
}

// TestProblemsAreNamed lets each operation of a probe fail in each way, and be well again.
func TestProblemsAreNamed(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]string{
		syscall.ENOSPC: "is full", syscall.EDQUOT: "is full", syscall.EROFS: "is read-only", syscall.ESTALE: "is stale", syscall.EIO: "fails: ",
		fs.ErrPermission: "may not be written", syscall.ENOTCONN: "is not there",
	} {
		for op := 1; op <= 6; op++ {
			disk := faultfs.New()
			m := New(Config{Open: on(disk), Name: "n1"})
			if s := look(t, m); s.Problem != "" || s.Took <= 0 {
				t.Fatalf("a good storage: %+v", s)
			}
			disk.Arm(faultfs.Plan{FailAt: op, Err: err})
			if s := look(t, m); !strings.Contains(s.Problem, want) {
				t.Errorf("%v at operation %d: %q, want %q", err, op, s.Problem, want)
			}
			disk.Arm(faultfs.Plan{})
			if s := look(t, m); s.Problem != "" {
				t.Errorf("after %v: %q", err, s.Problem)
			}
			if left, _ := disk.ReadDir("."); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		}
	}
}

// TestAFullOne has no room left for a word.
func TestAFullOne(t *testing.T) {
	t.Parallel()
	disk := faultfs.New()
	disk.Arm(faultfs.Plan{Capacity: 10})
	if s := look(t, New(Config{Open: on(disk), Name: "n1"})); !strings.Contains(s.Problem, "is full") {
		t.Errorf("%q", s.Problem)
	}
	free := uint64(9)
	m := New(Config{Open: on(faultfs.New()), Name: "n1", Free: func() (uint64, uint64, error) { return free, 1000, nil }})
	if s := look(t, m); !strings.Contains(s.Problem, "nearly full: 0.9 % are free") {
		t.Errorf("%q", s.Problem)
	}
	if free = 11; look(t, m).Problem != "" {
		t.Errorf("with 1.1 %% free: %q", m.Status(time.Now()).Problem)
	}
}

// TestRunTellsInOrder: what is over is not said after what followed it, and the end of a probe is said when it comes, not with the next.
func TestRunTellsInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk, answer := faultfs.New(), make(chan struct{})
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n == 1 {
				<-answer
			}
		}})
		told := make(chan string, 9)
		m := New(Config{Open: on(disk), Name: "n1", Changed: func(s Status) { told <- s.Problem }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- m.Run(ctx) }()
		began := time.Now()
		if got := <-told; !strings.Contains(got, "has not answered") || time.Since(began) != silentFrom {
			t.Errorf("while it hangs: told %q after %v", got, time.Since(began))
		}
		close(answer)
		if got := <-told; !strings.Contains(got, "is slow") || time.Since(began) != silentFrom {
			t.Errorf("when it has answered: told %q after %v", got, time.Since(began))
		}
		if got := <-told; got != "" || time.Since(began) != silentFrom+probeEvery {
			t.Errorf("with the next probe: told %q after %v", got, time.Since(began))
		}
		cancel()
		if err := <-ended; err != nil || len(told) > 0 {
			t.Errorf("at the end: %v, and %d more were told", err, len(told))
		}
	})
}

// TestASilentOne: a storage that does not answer is told of, holds nobody up, and is well again when it answers.
func TestASilentOne(t *testing.T) {
	t.Parallel()
	disk, hung, answer := faultfs.New(), make(chan struct{}), make(chan struct{})
	disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
		if n == 2 {
			close(hung)
			<-answer
		}
	}})
	var mu sync.Mutex
	var told []string
	m := New(Config{Open: on(disk), Name: "n1", Changed: func(s Status) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, s.Problem)
	}})
	done := m.kick()
	<-hung
	now := time.Now()
	if s := m.Status(now); s.Problem != "" {
		t.Errorf("at once: %q", s.Problem)
	}
	if s := m.Status(now.Add(silentFrom + time.Second)); !strings.Contains(s.Problem, "has not answered for 31s") {
		t.Errorf("after a while: %q", s.Problem)
	}
	if m.kick() != nil {
		t.Error("a second probe was begun")
	}
	close(answer)
	<-done
	if s := m.Status(time.Now()); s.Problem != "" {
		t.Errorf("when it has answered: %q", s.Problem)
	}
	disk.Arm(faultfs.Plan{FailAt: 1, Err: syscall.EROFS})
	look(t, m)
	disk.Arm(faultfs.Plan{FailAt: 1, Err: syscall.EROFS})
	look(t, m)
	mu.Lock()
	defer mu.Unlock()
	if len(told) != 1 || !strings.Contains(told[0], "read-only") {
		t.Errorf("told %q", told)
	}
}

func TestSlowAndWrong(t *testing.T) {
	t.Parallel()
	if got := problem(nil, 6*time.Second); !strings.Contains(got, "is slow: a small durable write took 6s") {
		t.Error(got)
	}
	if got := problem(errors.Join(errDiffers), 0); !strings.Contains(got, "other bytes") {
		t.Error(got)
	}
	if got := problem(checkpoint.ErrNone, 0); !strings.Contains(got, "fails: ") {
		t.Error(got)
	}
}
