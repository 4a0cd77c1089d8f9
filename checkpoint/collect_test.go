package checkpoint_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// onlyDir checks that one checkpoint's directory is the only one.
func onlyDir(t *testing.T, disk *faultfs.FS, want checkpoint.Ref) {
	t.Helper()
	for _, name := range disk.Names() {
		if strings.HasPrefix(name, "step-") && !strings.HasPrefix(name, want.String()+"/") {
			t.Fatalf("%s stays, only %v should", name, want)
		}
	}
}

func collect(t *testing.T, s *checkpoint.Store, epoch uint64, keep int) checkpoint.Collected {
	t.Helper()
	got, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: epoch, Keep: keep})
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	return got
}

func half(t *testing.T, s *checkpoint.Store, r checkpoint.Ref) {
	t.Helper()
	if _, err := s.WriteShard(t.Context(), shard(r, 0, 2)); err != nil {
		t.Fatal(err)
	}
}

func TestCollectRules(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	half(t, s, ref(1, 5))
	mustSave(t, s, ref(1, 10), 2)
	mustSave(t, s, ref(1, 20), 2)
	half(t, s, ref(1, 25))
	mustFence(t, s, 2)
	half(t, s, ref(2, 21)) // given up: this epoch went on to 22
	mustSave(t, s, ref(2, 22), 2)
	half(t, s, ref(2, 23)) // being written now
	got := collect(t, open(t, disk), 2, 2)
	if want := []checkpoint.Ref{ref(2, 22), ref(1, 20)}; !cmp.Equal(got.Kept, want) {
		t.Errorf("kept %v, want %v", got.Kept, want)
	}
	refs, err := s.List(t.Context())
	if want := []checkpoint.Ref{ref(2, 22), ref(1, 20)}; err != nil || !cmp.Equal(refs, want) {
		t.Errorf("complete ones are %v, %v; want %v", refs, err, want)
	}
	left := map[string]bool{}
	for _, name := range disk.Names() {
		if dir, _, ok := strings.Cut(name, "/"); ok && strings.HasPrefix(dir, "step-") {
			left[dir] = true
		}
	}
	want := map[string]bool{ref(2, 23).String(): true, ref(2, 22).String(): true, ref(1, 20).String(): true}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("directories left (-want +got):\n%s", diff)
	}
	if _, err := s.WriteShard(t.Context(), shard(ref(2, 23), 1, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), commitOf(ref(2, 23), 2)); err != nil {
		t.Errorf("the step that was being written during the collection: %v", err)
	}
}

func TestCollectNeverRemovesTheNewestThatVerifies(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	for step := uint64(1); step <= 4; step++ {
		mustSave(t, s, ref(1, step), 2)
	}
	for _, step := range []uint64{3, 4} { // rot in the two newest
		if err := disk.Flip(ref(1, step).String()+"/shard-0001-of-0002.glck", 5000, 3); err != nil {
			t.Fatal(err)
		}
	}
	got := collect(t, open(t, disk), 1, 1)
	if !cmp.Equal(got.Kept, []checkpoint.Ref{ref(1, 2)}) || len(got.Skipped) != 2 {
		t.Errorf("kept %v, skipped %v; want step 2 kept, 2 skipped", got.Kept, got.Skipped)
	}
	wantLatest(t, s, ref(1, 2))
	if err := disk.Flip(ref(1, 2).String()+"/shard-0001-of-0002.glck", 5000, 3); err != nil {
		t.Fatal(err)
	}
	if got := collect(t, open(t, disk), 1, 1); len(got.Removed) != 0 {
		t.Errorf("none verifies, and yet it removed %v", got.Removed)
	}
	_, skipped, err := s.Latest(t.Context())
	if !errors.Is(err, checkpoint.ErrAllBad) || len(skipped) != 3 {
		t.Errorf("latest with all damaged: %v, skipped %d; want ErrAllBad, not a start from nothing", err, len(skipped))
	}
	mustSave(t, s, ref(1, 9), 2)
	collect(t, open(t, disk), 1, 1)
	onlyDir(t, disk, ref(1, 9))
}

func TestCollectKeepsAtLeastOne(t *testing.T) {
	t.Parallel()
	_, s := begun(t, 1)
	if _, err := s.Collect(t.Context(), checkpoint.CollectRequest{Epoch: 1}); !errors.Is(err, checkpoint.ErrInvalid) {
		t.Errorf("keep 0: %v, want ErrInvalid", err)
	}
}
