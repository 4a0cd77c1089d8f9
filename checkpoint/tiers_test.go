package checkpoint_test

import (
	"slices"
	"testing"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/checkpoint/faultfs"
)

// TestEncodedOnTheNodesOwnDisk saves in two tiers all that there is: what is complete on the shared storage is referred to, also while
// later steps are still on their way there.
func TestEncodedOnTheNodesOwnDisk(t *testing.T) {
	t.Parallel()
	for name, cfg := range encodings(t) {
		shared, own := faultfs.New(), faultfs.New()
		cfg.Local = &checkpoint.Local{FS: own}
		s := openAs(t, shared, cfg)
		mustFence(t, s, 1)
		settle := func(m checkpoint.Manifest) {
			t.Helper()
			for _, sh := range m.Shards {
				p, err := s.LocalShard(t.Context(), m.Ref(), sh.File)
				if err != nil || p.State != checkpoint.ShardWaiting {
					t.Fatalf("%s: %s is %v, %v", name, sh.File, p.State, err)
				}
				src, err := own.Open(p.File())
				if err == nil {
					err = s.Drain(t.Context(), p, src, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := s.Settle(t.Context(), m.Ref()); err != nil {
				t.Fatal(err)
			}
		}
		var waiting []checkpoint.Manifest
		for step := uint64(1); step <= 6; step++ {
			m := mustMix(t, s, ref(1, step), 2)
			if !m.Local {
				t.Fatalf("%s: step %d is not on the node's own disk", name, step)
			}
			if waiting = append(waiting, m); len(waiting) == 3 { // two saves later
				settle(waiting[0])
				waiting = waiting[1:]
			}
			// Of 2 saves in a row one is whole, so with that there are some without.
			if want := step > 3 && (cfg.ReferenceShare >= 0 || cfg.Delta > 0 && step%2 == 0); len(m.Refs()) == 0 == want {
				t.Errorf("%s: step %d refers to %v", name, step, m.Refs())
			}
		}
		for _, m := range waiting {
			settle(m)
		}
		for step := uint64(1); step <= 6; step++ {
			far := cfg
			far.Local = nil
			wantMixed(t, openAs(t, shared, far), ref(1, step)) // as another node sees it
			wantMixed(t, s, ref(1, step))
		}
		if got := steps(t, s); !slices.Equal(got, []uint64{6, 5, 4, 3, 2, 1}) {
			t.Errorf("%s: complete are %v", name, got)
		}
	}
}
