package remote_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
	"github.com/gangline/gangline/checkpoint/remote"
)

// tuned gives checkpoints of steps 1 to n whose weights do not change; each but the first refers to the first.
func tuned(tb testing.TB, n uint64) (*checkpoint.Store, []checkpoint.Manifest) {
	tb.Helper()
	s := open(tb, faultfs.New())
	if err := s.Fence(tb.Context(), 1); err != nil {
		tb.Fatal(err)
	}
	var ms []checkpoint.Manifest
	for step := uint64(1); step <= n; step++ {
		_, err := s.WriteShard(tb.Context(), checkpoint.ShardWrite{Epoch: 1, Step: step, WorldSize: 1, Tensors: []checkpoint.Tensor{
			checkpoint.Whole("w", weights(), elements), checkpoint.Whole("step", []int64{int64(step)}, 1),
		}})
		if err != nil {
			tb.Fatal(err)
		}
		m, err := s.Commit(tb.Context(), checkpoint.CommitRequest{Epoch: 1, Step: step, WorldSize: 1})
		if err != nil || step > 1 && !slices.Equal(m.Refs(), []checkpoint.Ref{{Epoch: 1, Step: 1}}) {
			tb.Fatalf("step %d refers to %v, %v", step, m.Refs(), err)
		}
		ms = append(ms, m)
	}
	return s, ms
}

// wantPulled pulls a checkpoint to a directory of its own and reads it.
func wantPulled(tb testing.TB, b remote.Bucket, m checkpoint.Manifest) {
	tb.Helper()
	s := open(tb, faultfs.New())
	back, err := remote.Pull(tb.Context(), b, s, m.Job, m.Ref())
	if err == nil {
		err = s.Verify(tb.Context(), back)
	}
	got := make([]float32, elements)
	if err == nil {
		err = s.ReadTensor(tb.Context(), back, "w", got)
	}
	if err != nil || !slices.Equal(got, weights()) {
		tb.Errorf("pull %s: %v", m.Ref(), err)
	}
}

// TestReferencesInTheBucket pushes what refers before what is referred to, and removes in either order.
func TestReferencesInTheBucket(t *testing.T) {
	t.Parallel()
	s, ms := tuned(t, 3)
	shared := "job-7/" + ms[0].Ref().String() + "/" + ms[0].Shards[0].File
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
		b := &remote.Memory{}
		uploads := 0
		b.Before = func(_ int, op, name string) error {
			if op == "upload" && name == shared {
				uploads++
			}
			return nil
		}
		for _, i := range []int{2, 1, 0} {
			if err := remote.Push(t.Context(), b, s, ms[i]); err != nil {
				t.Fatal(err)
			}
			wantPulled(t, b, ms[i])
		}
		if uploads != 2 { // once for all that refer to it, once for the checkpoint itself
			t.Errorf("the file that all share was uploaded %d times", uploads)
		}
		for n, i := range order {
			if err := remote.Remove(t.Context(), b, "job-7", ms[i].Ref(), false); err != nil {
				t.Fatal(err)
			}
			for _, j := range order[n+1:] {
				wantPulled(t, b, ms[j])
			}
		}
		if left, err := b.List(t.Context(), ""); err != nil || len(left) > 0 {
			t.Errorf("removed in the order %v: left are %v, %v", order, left, err)
		}
	}
}

// TestPushOfAPulledCheckpoint goes on from a copy that carries what it refers to.
func TestPushOfAPulledCheckpoint(t *testing.T) {
	t.Parallel()
	s, ms := tuned(t, 2)
	b, again := &remote.Memory{}, &remote.Memory{}
	if err := remote.Push(t.Context(), b, s, ms[1]); err != nil {
		t.Fatal(err)
	}
	back := open(t, faultfs.New())
	m, err := remote.Pull(t.Context(), b, back, "job-7", ms[1].Ref())
	if err == nil {
		err = remote.Push(t.Context(), again, back, m)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantPulled(t, again, m)
	objects, err := again.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		for at := 5000; strings.HasSuffix(o.Name, ".glck") && at < int(o.Bytes); at += 9973 {
			again.Flip(o.Name, at)
			if _, err := remote.Pull(t.Context(), again, open(t, faultfs.New()), m.Job, m.Ref()); err == nil {
				t.Errorf("a bit flipped at %d of %s was not seen", at, o.Name)
			}
			again.Flip(o.Name, at)
		}
	}
	again.Before = func(_ int, op, name string) error {
		if op == "read" && strings.Contains(name, ms[0].Ref().String()) {
			return remote.ErrNotFound
		}
		return nil
	}
	if _, err := remote.Pull(t.Context(), again, open(t, faultfs.New()), m.Job, m.Ref()); !errors.Is(err, remote.ErrNotFound) {
		t.Errorf("what it refers to is gone: %v", err)
	}
}

// TestReferencesCutOnTheWay cuts pushes and pulls of a checkpoint that refers to another, with and without that other at the place.
func TestReferencesCutOnTheWay(t *testing.T) {
	t.Parallel()
	s, ms := tuned(t, 2)
	m := ms[1]
	cut := errors.New("the link is cut")
	full := &remote.Memory{}
	if err := remote.Push(t.Context(), full, s, m); err != nil {
		t.Fatal(err)
	}
	for at := 1; at <= full.Ops()-2; at++ { // the last ones give the leases back: the copy is made then
		b, down := &remote.Memory{}, true
		b.Before = func(n int, _, _ string) error {
			if down && n >= at {
				return cut
			}
			return nil
		}
		err := remote.Push(t.Context(), b, s, m)
		down = false
		if !errors.Is(err, cut) {
			t.Fatalf("push cut at %d: %v", at, err)
		}
		if _, err := remote.Pull(t.Context(), b, open(t, faultfs.New()), m.Job, m.Ref()); !errors.Is(err, checkpoint.ErrNone) {
			t.Fatalf("push cut at %d: a pull of half of it: %v", at, err)
		}
		if err := remote.Push(t.Context(), b, s, m); err != nil {
			t.Fatalf("push cut at %d: again: %v", at, err)
		}
		wantPulled(t, b, m)
	}
	if err := remote.Push(t.Context(), full, s, ms[0]); err != nil {
		t.Fatal(err)
	}
	for _, with := range []bool{false, true} {
		for at, whole := 1, false; !whole; at++ {
			disk := faultfs.New()
			if with {
				if _, err := remote.Pull(t.Context(), full, open(t, disk), m.Job, ms[0].Ref()); err != nil {
					t.Fatal(err)
				}
			}
			disk.Arm(faultfs.Plan{PowerAt: at})
			_, err := remote.Pull(t.Context(), full, open(t, disk), m.Job, m.Ref())
			whole = err == nil
			disk.Crash(faultfs.DropAll, nil)
			back := open(t, disk)
			got, skipped, lerr := back.Latest(t.Context())
			if len(skipped) > 0 || lerr != nil && !errors.Is(lerr, checkpoint.ErrNone) || whole && got.Ref() != m.Ref() {
				t.Fatalf("power cut at %d, pull said %v: latest %v, %v, skipped %v", at, err, got.Ref(), lerr, skipped)
			}
			if got, err = remote.Pull(t.Context(), full, back, m.Job, m.Ref()); err == nil {
				err = back.Verify(t.Context(), got)
			}
			if err != nil {
				t.Fatalf("power cut at %d: again: %v", at, err)
			}
		}
	}
}
