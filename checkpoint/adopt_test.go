package checkpoint_test

import (
	"errors"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// elsewhere commits files on another disk and gives their manifest.
func elsewhere(tb testing.TB, r checkpoint.Ref) []byte {
	tb.Helper()
	disk, s := begun(tb, r.Epoch)
	m := commitFiles(tb, s, disk, r)
	data, err := s.ManifestFile(&m)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// TestAdoptedFilesPowerCutAtEveryOperation: afterwards the adopted checkpoint is whole or absent, and a new copy can be adopted; what lies at its place is right
// even where its manifest is missing.
func TestAdoptedFilesPowerCutAtEveryOperation(t *testing.T) {
	t.Parallel()
	r := ref(3, 20)
	manifest := elsewhere(t, r)
	for at, whole := 1, false; !whole; at++ {
		for _, mode := range []faultfs.CrashMode{faultfs.DropAll, faultfs.KeepNames} {
			disk, s := begun(t, 3)
			putFiles(t, disk, "tmp-copy", 20)
			disk.Arm(faultfs.Plan{PowerAt: at})
			_, err := s.AdoptFiles(t.Context(), manifest, "tmp-copy")
			whole = err == nil
			disk.Crash(mode, nil)
			s = open(t, disk)
			if _, skipped, lerr := s.Latest(t.Context()); len(skipped) > 0 || lerr != nil && (whole || !errors.Is(lerr, checkpoint.ErrNone)) {
				t.Fatalf("power cut at %d, adopt said %v: %v, skipped %v", at, err, lerr, skipped)
			}
			putFiles(t, disk, "tmp-again", 20)
			if _, err := s.AdoptFiles(t.Context(), manifest, "tmp-again"); err != nil {
				t.Fatalf("power cut at %d: again: %v", at, err)
			}
			wantFiles(t, s, disk, r)
		}
	}
}

// TestAdoptedFilesAtEveryMoment adopts once more, or begins a new epoch, before every operation: one checkpoint, or none that a newer epoch sees appear.
func TestAdoptedFilesAtEveryMoment(t *testing.T) {
	t.Parallel()
	r := ref(3, 20)
	manifest := elsewhere(t, r)
	for _, fence := range []bool{false, true} {
		for at, over := 1, false; !over; at++ {
			disk, s := begun(t, 3)
			putFiles(t, disk, "tmp-one", 20)
			putFiles(t, disk, "tmp-two", 20)
			var inner error
			seen := false // by the newer epoch, when it began
			other := open(t, disk)
			over = true
			busy := false
			disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
				if busy || n != at {
					return
				}
				busy, over = true, false
				if !fence {
					_, inner = other.AdoptFiles(t.Context(), manifest, "tmp-two")
					return
				}
				if inner = other.Fence(t.Context(), 4); inner == nil {
					_, _, err := other.Latest(t.Context())
					seen = err == nil
				}
			}})
			_, err := s.AdoptFiles(t.Context(), manifest, "tmp-one")
			disk.Arm(faultfs.Plan{})
			if inner != nil || !fence && err != nil {
				t.Fatalf("at %d: %v, the other one: %v", at, err, inner)
			}
			if !fence {
				wantFiles(t, open(t, disk), disk, r)
				continue
			}
			if _, _, lerr := open(t, disk).Latest(t.Context()); !over && seen != (lerr == nil) || (err == nil) != (lerr == nil) {
				t.Fatalf("fenced at %d: adopt says %v; seen then: %t, now %v", at, err, seen, lerr)
			}
		}
	}
}

// TestAdoptTakesNoOthersFiles: a copy that differs in a bit, lacks a file or has one more is refused, and moves nowhere.
func TestAdoptTakesNoOthersFiles(t *testing.T) {
	t.Parallel()
	manifest := elsewhere(t, ref(3, 20))
	for name, spoil := range map[string]func(*faultfs.FS){
		"a bit":     func(d *faultfs.FS) { put(t, d, "tmp/model.pt", append([]byte{1}, content(20, 1)[1:]...)) },
		"one less":  func(d *faultfs.FS) { _ = d.Remove("tmp/empty") },
		"one more":  func(d *faultfs.FS) { put(t, d, "tmp/zzz", nil) },
		"a shorter": func(d *faultfs.FS) { put(t, d, "tmp/model.pt", content(20, 1)[1:]) },
	} {
		disk, s := begun(t, 3)
		putFiles(t, disk, "tmp", 20)
		spoil(disk)
		var damage *checkpoint.CorruptError
		if _, err := s.AdoptFiles(t.Context(), manifest, "tmp"); !errors.As(err, &damage) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := disk.ReadDir("tmp"); err != nil {
			t.Errorf("%s: the copy has gone: %v", name, err)
		}
	}
	disk, s := begun(t, 4)
	putFiles(t, disk, "tmp", 20)
	if _, err := s.AdoptFiles(t.Context(), manifest, "tmp"); !errors.Is(err, checkpoint.ErrFenced) {
		t.Errorf("of an older epoch: %v", err)
	}
	if _, err := s.AdoptFiles(t.Context(), []byte("{}"), "tmp"); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("no manifest: %v", err)
	}
}
