package replica

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// A real disk fills up under a real log. Everything acknowledged is there once
// the operator has made room and started the server again.
func TestRealDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	b := newBox(t, 1)
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("cannot mount a small tmpfs here: %v", err)
	}
	t.Cleanup(func() { // after the servers are closed
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	b.tune = func(c *Config) { c.Dir = dir }
	defer b.stopAll()
	r := b.start("a")
	waitLeader(t, b.replicas)
	must(t, r, node())
	acked := 0
	for {
		c := submitted(fmt.Sprint("job", acked))
		c.Spec.Command = []string{strings.Repeat("x", 64<<10)}
		results, _, err := r.Propose(testContext(t), c)
		if err != nil {
			if !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, r.Err()) {
				t.Errorf("propose on the full disk: %v", err)
			}
			break
		}
		if results[0].Code != cluster.OK {
			t.Fatal(results[0].Message)
		}
		if acked++; acked > 200 {
			t.Fatal("the disk of 6 MiB took 12 MiB")
		}
	}
	<-r.Failed()
	t.Logf("after %d jobs: %v", acked, r.Err())
	if !strings.Contains(r.Err().Error(), "make room") || !strings.Contains(r.Err().Error(), "disk") {
		t.Errorf("failure %q does not say what to do", r.Err())
	}
	b.stop("a")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	r = b.start("a")
	waitLeader(t, b.replicas)
	s, err := r.Read(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range acked {
		if s.Request(fmt.Sprint("job", i)) == nil {
			t.Fatalf("job %d of %d was acknowledged and is lost", i, acked)
		}
	}
	must(t, r, submitted("after"))
}
