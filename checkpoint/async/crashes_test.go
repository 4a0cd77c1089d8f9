package async

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// frozenRequest is request with weights that no step changes, so that the second save refers to the first.
func frozenRequest(step uint64) SaveRequest {
	r := request(step, state(step), 0, 1)
	frozen := state(0)
	r.Tensors = append(r.Tensors, checkpoint.Whole("frozen", frozen, elements))
	return r
}

// trained gives a store and a saver that has saved step 1.
func trained(t *testing.T, compress checkpoint.Compression) (*faultfs.FS, *Saver, string, chan Result) {
	t.Helper()
	disk, dir := faultfs.New(), t.TempDir()
	store := openAs(t, disk, compress)
	results := make(chan Result, 4)
	s := saver(t, store, 0, 1, dir, func(r Result) { results <- r })
	if _, err := s.Save(t.Context(), frozenRequest(1)); err != nil {
		t.Fatal(err)
	}
	if r := <-results; r.Err != nil {
		t.Fatal(r.Err)
	}
	return disk, s, dir, results
}

func openAs(t *testing.T, disk *faultfs.FS, compress checkpoint.Compression) *checkpoint.Store {
	t.Helper()
	s, err := checkpoint.Open(checkpoint.Config{FS: disk, Job: "j", ChunkBytes: 4 * checkpoint.Align, Compress: compress})
	if err == nil {
		err = s.Fence(t.Context(), 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantFrozen is wantLatest, and the weights that do not change are there too.
func wantFrozen(t *testing.T, s *checkpoint.Store, step uint64) {
	t.Helper()
	wantLatest(t, s, step)
	m, err := s.Load(t.Context(), checkpoint.Ref{Epoch: 1, Step: step})
	got := make([]float32, elements)
	if err == nil {
		err = s.ReadTensor(t.Context(), m, "frozen", got)
	}
	if err != nil || !slices.Equal(got, state(0)) {
		t.Fatalf("step %d: frozen weights: %v", step, err)
	}
}

// TestWorkerKilledEverywhere kills the worker at each operation of a save in the background: its agent finishes it, whatever was reached.
func TestWorkerKilledEverywhere(t *testing.T) {
	t.Parallel()
	for _, compress := range []checkpoint.Compression{checkpoint.NoCompression, checkpoint.Zstd} {
		for at, total := 0, 0; at <= total; at++ {
			disk, s, dir, results := trained(t, compress)
			disk.Arm(faultfs.Plan{PowerAt: at}) // 0: undisturbed
			if _, err := s.Save(t.Context(), frozenRequest(2)); err != nil {
				t.Fatal(err)
			}
			r := <-results
			if at == 0 {
				if total = disk.Ops(); r.Err != nil || total < 15 || !slices.Equal(r.Manifest.Refs(), []checkpoint.Ref{{Epoch: 1, Step: 1}}) {
					t.Fatalf("undisturbed: %+v, %d operations", r, total)
				}
			}
			if err := s.Close(t.Context()); (err == nil) != (r.Err == nil) {
				t.Fatalf("operation %d: close: %v", at, err)
			}
			disk.Crash(faultfs.Killed, nil)
			done, err := Finish(t.Context(), openAs(t, disk, ""), dir, 0)
			if err != nil || len(done) > 1 || r.Err != nil && len(done) != 1 {
				t.Fatalf("operation %d, after which the worker said %v: finish: %v, %v", at, r.Err, done, err)
			}
			wantFrozen(t, openAs(t, disk, compress), 2)
			if left, err := filepath.Glob(dir + "/*" + noteSuffix); err != nil || len(left) > 0 {
				t.Fatalf("operation %d: notes are left: %v, %v", at, left, err)
			}
		}
	}
}

// TestSaveFailsEverywhere lets each operation of a save in the background fail once: the step is told to be none, and the next one is saved.
func TestSaveFailsEverywhere(t *testing.T) {
	t.Parallel()
	for at, failed := 1, true; failed || at < 15; at++ {
		disk, s, _, results := trained(t, "")
		disk.Arm(faultfs.Plan{FailAt: at, Err: syscall.EIO})
		if _, err := s.Save(t.Context(), frozenRequest(2)); err != nil {
			t.Fatal(err)
		}
		r := <-results
		if failed = r.Err != nil; failed && !errors.Is(r.Err, syscall.EIO) {
			t.Fatalf("operation %d: %v", at, r.Err)
		}
		disk.Arm(faultfs.Plan{})
		if _, err := s.Save(t.Context(), frozenRequest(3)); err != nil {
			t.Fatal(err)
		}
		if r := <-results; r.Err != nil {
			t.Fatalf("operation %d: the next save: %v", at, r.Err)
		}
		if err := s.Close(t.Context()); failed != (err != nil) {
			t.Fatalf("operation %d: close: %v", at, err)
		}
		wantFrozen(t, openAs(t, disk, ""), 3)
	}
}

// TestFinishCutEverywhere kills the agent, and cuts its power, at each operation of its finishing of two ranks' saves: the agent that comes
// after it ends what was begun, if the images are still there; and where they are not, the checkpoint before is.
func TestFinishCutEverywhere(t *testing.T) {
	t.Parallel()
	world := func() *faultfs.FS {
		disk := faultfs.New()
		s := saver(t, open(t, disk), 0, 1, "", nil)
		if _, err := s.Save(t.Context(), request(6, state(6), 0, 1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		return disk
	}
	images := died(t, 7, 2)
	calm := world()
	calm.Arm(faultfs.Plan{})
	if _, err := Finish(t.Context(), open(t, calm), copyOf(t, images), 0); err != nil {
		t.Fatal(err)
	}
	total := calm.Ops()
	for _, mode := range []faultfs.CrashMode{faultfs.Killed, faultfs.DropAll, faultfs.KeepNames, faultfs.Some} {
		for at := 1; at <= total; at++ {
			disk, dir := world(), copyOf(t, images)
			store := open(t, disk)
			disk.Arm(faultfs.Plan{PowerAt: at})
			_, err := Finish(t.Context(), store, dir, 0)
			where := fmt.Sprintf("mode %d, operation %d of %d, finish said %v", mode, at, total, err)
			disk.Crash(mode, rand.New(rand.NewPCG(uint64(at), 0)))
			m, skipped, lerr := open(t, disk).Latest(t.Context())
			if lerr != nil || len(skipped) > 0 || m.Step != 7 && (err == nil || m.Step != 6) {
				t.Fatalf("%s: latest is %v, %v, skipped %v", where, m.Ref(), lerr, skipped)
			}
			wantLatest(t, open(t, disk), m.Step)
			if mode != faultfs.Killed {
				continue // the images went with the machine
			}
			if _, err := Finish(t.Context(), open(t, disk), dir, 0); err != nil {
				t.Fatalf("%s: the next agent: %v", where, err)
			}
			wantLatest(t, open(t, disk), 7)
		}
	}
}

// copyOf copies a directory of images, which a Finish uses up.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "images")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}
