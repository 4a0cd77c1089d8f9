package checkpoint_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// TestRealDiskFull fills a real file system of 1 MiB.
func TestRealDiskFull(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs the right to mount a small tmpfs (root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(path, 0); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
	dir, err := checkpoint.NewDir(path)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	mustFence(t, s, 1)
	mustSave(t, s, ref(1, 10), 2)
	big := checkpoint.ShardWrite{Epoch: 1, Step: 20, WorldSize: 1, Tensors: []checkpoint.Tensor{
		checkpoint.Whole("w", make([]float32, 1<<19), 1<<19), // 2 MiB
	}}
	_, err = s.WriteShard(t.Context(), big)
	var space *checkpoint.NoSpaceError
	if !errors.As(err, &space) || space.Bytes != 1<<21+checkpoint.Align {
		t.Fatalf("write of 2 MiB into 1 MiB: %v, want a NoSpaceError with the need", err)
	}
	left, err := os.ReadDir(filepath.Join(path, ref(1, 20).String()))
	if err != nil || len(left) != 0 {
		t.Errorf("half-written files stay: %v, %v", left, err)
	}
	wantLatest(t, s, ref(1, 10))
	mustSave(t, s, ref(1, 30), 2) // the room is back
	wantLatest(t, s, ref(1, 30))
	if !strings.Contains(space.Error(), "keep fewer checkpoints") {
		t.Errorf("error does not say what to do: %v", space)
	}
}
