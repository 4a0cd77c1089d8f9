package checkpoint_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// TestAReferenceAtEveryMomentOfARemoval saves a step that refers to step 1 before every single operation of a removal of step 1,
// and the other way round. Whatever is complete in the end is whole.
func TestAReferenceAtEveryMomentOfARemoval(t *testing.T) {
	t.Parallel()
	remove := func(s *checkpoint.Store) error {
		err := s.Remove(context.Background(), checkpoint.RemoveRequest{Ref: ref(1, 1), Force: true})
		if errors.Is(err, checkpoint.ErrInUse) || errors.Is(err, checkpoint.ErrNone) {
			return nil
		}
		return err
	}
	save := func(s *checkpoint.Store) error { _, err := tune(context.Background(), s, ref(1, 2), 1); return err }
	for name, order := range map[string][2]func(*checkpoint.Store) error{"removal": {remove, save}, "save": {save, remove}} {
		kept, gone := 0, 0
		for at, ran := 1, true; ran; at++ {
			disk, s := begun(t, 1)
			mustTune(t, s, ref(1, 1), 1)
			ran = false
			disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
				if n == at {
					ran = true
					if err := order[1](s); err != nil {
						t.Errorf("during the %s, operation %d: %v", name, at, err)
					}
				}
			}})
			if err := order[0](s); err != nil {
				t.Fatalf("%s, operation %d: %v", name, at, err)
			}
			disk.Arm(faultfs.Plan{})
			if !ran {
				break // it has fewer operations
			}
			wantTuned(t, open(t, disk), ref(1, 2))
			if m := mustLoad(t, s, ref(1, 2)); len(m.Refs()) > 0 {
				kept++
				wantTuned(t, s, ref(1, 1))
			} else if len(steps(t, s)) == 1 {
				gone++
			}
		}
		if kept == 0 || gone == 0 {
			t.Errorf("during the %s: referred to %d times, gone %d times: the test does not test", name, kept, gone)
		}
	}
}

// TestTwoRemovalsAndAReader: one removal takes step 2 out of sight; before it has looked for readers, another one removes step 1, to which
// step 2 refers; then the first one finds a reader and puts step 2 back.
func TestTwoRemovalsAndAReader(t *testing.T) {
	t.Parallel()
	refused := 0
	for at, total := 1, 30; at <= total; at++ {
		disk, s := begun(t, 1)
		for step := uint64(1); step <= 3; step++ {
			mustTune(t, s, ref(1, step), 1)
		}
		mustSave(t, s, ref(1, 4), 1)
		if err := s.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 3)}); err != nil {
			t.Fatal(err)
		}
		other := open(t, disk)
		disk.Arm(faultfs.Plan{Before: func(n int, _, _ string) {
			if n != at {
				return
			}
			if _, err := other.Lease(t.Context(), ref(1, 2), "r", time.Unix(2_000_000_000, 0)); err != nil {
				// It is out of sight: a lease that came a moment earlier is what the removal then finds.
				f, err := disk.Create("leases/"+ref(1, 2).String()+"~2000000000~r", false)
				if err == nil {
					err = f.Close()
				}
				if err != nil {
					return // no such directory: nobody ever read here
				}
			}
			err := other.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 1)})
			if err != nil && !errors.Is(err, checkpoint.ErrInUse) {
				t.Errorf("operation %d: %v", at, err)
			}
		}})
		err := s.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 2)})
		disk.Arm(faultfs.Plan{})
		if errors.Is(err, checkpoint.ErrInUse) {
			refused++
			wantTuned(t, other, ref(1, 2))
		} else if err != nil {
			t.Fatalf("operation %d: %v", at, err)
		}
	}
	if refused == 0 {
		t.Error("step 2 was never put back: the test does not test")
	}
}

// TestRenamesWhileOthersLook moves step 2 out of sight, as a removal that is going to put it back does, just when a removal of step 1 lists
// it; and step 1 just when a reader of step 2 opens it.
func TestRenamesWhileOthersLook(t *testing.T) {
	t.Parallel()
	for op, moved := range map[string]checkpoint.Ref{"readdir": ref(1, 2), "open": ref(1, 1)} {
		disk, s := begun(t, 1)
		mustTune(t, s, ref(1, 1), 1)
		m := mustTune(t, s, ref(1, 2), 1)
		dir, done := moved.String(), false
		move := func(from, to string) {
			if err := disk.Rename(from, to); err != nil {
				t.Error(err)
			}
		}
		disk.Arm(faultfs.Plan{Before: func(_ int, at, name string) {
			switch {
			case !done && at == op && (name == dir || name == dir+"/shard-0000-of-0001.glck"):
				done = true
				move(dir, dir+".dead")
			case done && op == "readdir" && at == "rename" && name == ref(1, 1).String(): // and once more after that
				done = false
				move(dir+".dead", dir)
			}
		}})
		if op == "readdir" {
			err := s.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 1), Force: true})
			if !errors.Is(err, checkpoint.ErrInUse) {
				t.Errorf("removed what is referred to: %v", err)
			}
		} else if err := s.ReadTensor(t.Context(), m, "frozen", make([]float32, len(frozen()))); err != nil {
			t.Errorf("read: %v", err)
		}
		if err := disk.Rename(dir+".dead", dir); err != nil || !done {
			t.Fatalf("%s: not moved: %v", op, err)
		}
		wantTuned(t, s, ref(1, 2))
	}
}

// TestAnOriginWithoutItsManifest: a power cut took the manifest of step 1 after step 2, which refers to it, was durable. Step 2 stays whole
// through fences and collections, and takes the rest of step 1 with it when it goes.
func TestAnOriginWithoutItsManifest(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustTune(t, s, ref(1, 1), 2)
	mustTune(t, s, ref(1, 2), 2)
	if err := disk.Remove(ref(1, 1).String() + "/MANIFEST.json"); err != nil {
		t.Fatal(err)
	}
	collect(t, open(t, disk), 1, 1)
	wantTuned(t, open(t, disk), ref(1, 2))
	s = open(t, disk)
	mustFence(t, s, 2) // moves what is left of step 1
	collect(t, s, 2, 1)
	wantTuned(t, s, ref(1, 2))
	if err := s.Remove(t.Context(), checkpoint.RemoveRequest{Ref: ref(1, 1), Force: true}); !errors.Is(err, checkpoint.ErrInUse) {
		t.Errorf("remove: %v", err)
	}
	mustSave(t, s, ref(2, 3), 1)
	collect(t, s, 2, 1)
	collect(t, s, 2, 1) // half-written ones go before complete ones, so this takes two
	onlyDir(t, disk, ref(2, 3))
}
