package faultfs_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint/faultfs"
)

// write makes a file and syncs what it is told to.
func write(t *testing.T, f *faultfs.FS, name, content string, sync, syncDir bool) {
	t.Helper()
	file, err := f.Create(name, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if sync {
		err = file.Sync()
	}
	if syncDir {
		err = errors.Join(err, f.SyncDir("."))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, f *faultfs.FS, name string) string {
	t.Helper()
	file, err := f.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "(none)"
	}
	if err != nil {
		t.Fatal(err)
	}
	size, err := file.Size()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, size)
	if _, err := file.ReadAt(buf, 0); err != nil && size > 0 {
		t.Fatal(err)
	}
	return string(buf)
}

func TestCrashKeepsOnlyWhatWasSynced(t *testing.T) {
	t.Parallel()
	tests := []struct {
		mode                   faultfs.CrashMode
		both, content, dirOnly string
	}{
		{faultfs.DropAll, "x", "(none)", ""},
		{faultfs.KeepNames, "x", "x", ""},
	}
	for _, tt := range tests {
		f := faultfs.New()
		write(t, f, "dirOnly", "x", false, true)
		write(t, f, "both", "x", true, true)
		write(t, f, "content", "x", true, false)
		f.Crash(tt.mode, nil)
		got := []string{read(t, f, "both"), read(t, f, "content"), read(t, f, "dirOnly")}
		if want := []string{tt.both, tt.content, tt.dirOnly}; !slices.Equal(got, want) {
			t.Errorf("mode %d: got %q, want %q", tt.mode, got, want)
		}
	}
}

func TestRenameIsOneChange(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for seed := range uint64(50) {
		f := faultfs.New()
		write(t, f, "old", "x", true, true)
		if err := f.Rename("old", "new"); err != nil {
			t.Fatal(err)
		}
		f.Crash(faultfs.Some, rand.New(rand.NewPCG(seed, 0)))
		names := f.Names()
		if len(names) != 1 {
			t.Fatalf("after the crash there are %v, want one of old and new", names)
		}
		seen[names[0]] = true
	}
	if !seen["old"] || !seen["new"] {
		t.Errorf("crashes left only %v", seen)
	}
}

func TestPlans(t *testing.T) {
	t.Parallel()
	f := faultfs.New()
	f.Arm(faultfs.Plan{FailAt: 2, Err: syscall.EIO, Capacity: 3})
	file, err := f.Create("a", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write([]byte("x")); !errors.Is(err, syscall.EIO) {
		t.Errorf("second operation: %v, want EIO", err)
	}
	if n, err := file.Write([]byte("abcde")); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write over the capacity: %d, %v; want 3 and ENOSPC", n, err)
	}
	f.Arm(faultfs.Plan{PowerAt: 1})
	if err := file.Sync(); !errors.Is(err, faultfs.ErrPower) {
		t.Errorf("after the power cut: %v, want ErrPower", err)
	}
	f.Crash(faultfs.KeepNames, nil)
	if err := file.Sync(); !errors.Is(err, faultfs.ErrPower) {
		t.Errorf("file from before the crash: %v, want ErrPower", err)
	}
}
