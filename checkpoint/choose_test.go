package checkpoint_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gangline/gangline/checkpoint"
)

// TestOnlyEarlierOnesAreReferredTo writes a step again, and an earlier step after a later one.
func TestOnlyEarlierOnesAreReferredTo(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustTune(t, s, ref(1, 50), 1)
	for range 2 { // the second try of the same step
		if _, err := s.WriteShard(t.Context(), tuned(ref(1, 40), 0, 1)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.Commit(t.Context(), commitOf(ref(1, 40), 1))
	if err != nil || len(m.Refs()) > 0 {
		t.Fatalf("step 40, saved after 50, refers to %v, %v", m.Refs(), err)
	}
	wantTuned(t, s, ref(1, 40))
	for _, name := range disk.Names() {
		if strings.Contains(name, "/uses-") {
			t.Errorf("%s is noted", name)
		}
	}
}

// TestHalfReceivedIsNoHalfCommit: what a cut Receive left with files of another checkpoint in it is not taken for a program's own files.
func TestHalfReceivedIsNoHalfCommit(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	put(t, disk, ref(1, 2).String()+"/"+ref(1, 1).String()+"/shard-0000-of-0001.glck", []byte("half"))
	if got, err := s.HalfFiles(t.Context(), 1); err != nil || len(got) > 0 {
		t.Errorf("half commits of files: %v, %v", got, err)
	}
}

// TestFewSourcesHoweverTensorsChange lets tensors stand still and move by chance: no save refers to more than four others, to each of them for a
// quarter of its bytes, and what stays on the disk is bounded.
func TestFewSourcesHoweverTensorsChange(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	rng := rand.New(rand.NewPCG(5, 6))
	const tensors, size = 8, 3000
	state, several := make([][]byte, tensors), 0
	for i := range state {
		state[i] = make([]byte, size)
	}
	for step := uint64(1); step <= 60; step++ {
		w := checkpoint.ShardWrite{Epoch: 1, Step: step, WorldSize: 1}
		for i := range state {
			if rng.IntN(4) == 0 {
				state[i][rng.IntN(size)]++
			}
			w.Tensors = append(w.Tensors, checkpoint.Whole(fmt.Sprint(i), state[i], size))
		}
		info, err := s.WriteShard(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		bytes := map[checkpoint.Ref]int{}
		for _, x := range info.Tensors {
			if x.From > 0 {
				bytes[info.Origins[x.From-1].Ref()] += size
			}
		}
		for r, n := range bytes {
			if n*4 < tensors*size {
				t.Errorf("step %d refers to %v for %d of %d bytes", step, r, n, tensors*size)
			}
		}
		if len(bytes) > 1 {
			several++
		}
		m, err := s.Commit(t.Context(), commitOf(ref(1, step), 1))
		if err != nil || len(m.Refs()) != len(bytes) {
			t.Fatalf("step %d refers to %v, want %v; %v", step, m.Refs(), bytes, err)
		}
		collect(t, s, 1, 2)
		if n := len(steps(t, s)); n > 2+2*4 {
			t.Fatalf("step %d: %d checkpoints stay", step, n)
		}
		r := open(t, disk).NewReader(m)
		for i := range state {
			got := make([]byte, size)
			if err := checkpoint.Read(t.Context(), r, fmt.Sprint(i), got); err != nil || !slices.Equal(got, state[i]) {
				t.Fatalf("step %d, tensor %d is not what was saved: %v", step, i, err)
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if several == 0 {
		t.Error("no save referred to two others: the test does not test")
	}
}

// TestNothingOlderThanWhatWasCommitted: a job that knows of a newer checkpoint than is there, or is good, is given none, if it asks for that.
func TestNothingOlderThanWhatWasCommitted(t *testing.T) {
	t.Parallel()
	disk, s := begun(t, 1)
	mustSave(t, s, ref(1, 10), 2)
	mustSave(t, s, ref(1, 20), 2)
	latest := func(committed string) error {
		cfg := checkpoint.Config{FS: disk, Job: testJob}
		env := map[string]string{checkpoint.EnvOlder: checkpoint.RefuseOlder, "GANGLINE_RESUME_FROM": committed}
		if err := cfg.FromEnv(t.Context(), func(name string) string { return env[name] }); err != nil {
			t.Fatal(err)
		}
		s, err := checkpoint.Open(cfg)
		if err == nil {
			_, _, err = s.Latest(t.Context())
		}
		return err
	}
	for _, known := range []string{"", "/s/" + ref(1, 20).String(), "/s/" + ref(1, 10).String(), "/s/other"} {
		if err := latest(known); err != nil {
			t.Errorf("the scheduler knows %q: %v", known, err)
		}
	}
	if err := latest("/s/" + ref(1, 30).String()); !errors.Is(err, checkpoint.ErrOlder) {
		t.Errorf("step 30 is gone: %v", err)
	}
	if err := disk.Flip(ref(1, 20).String()+"/shard-0000-of-0002.glck", 5000, 1); err != nil {
		t.Fatal(err)
	}
	if err := latest("/s/" + ref(1, 20).String()); !errors.Is(err, checkpoint.ErrOlder) {
		t.Errorf("step 20 is damaged: %v", err)
	}
}
