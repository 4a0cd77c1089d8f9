package cluster

import (
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestRequestIndexIsAMap: it finds what a map finds, whatever has come and gone.
func TestRequestIndexIsAMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &State{}
		s.indexRequests()
		x, want := s.byRequest, map[string]*Request{}
		key := rapid.OneOf(rapid.Map(rapid.IntRange(0, 300), strconv.Itoa), rapid.String())
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			k := key.Draw(t, "key")
			if rapid.IntRange(0, 9).Draw(t, "what") < 4 && want[k] != nil {
				x.drop(k)
				delete(want, k)
			} else {
				want[k] = &Request{ID: k}
				x.set(want[k])
			}
			if x.count != len(want) || x.get(k) != want[k] {
				t.Fatalf("it holds %d, and %v of %q: want %d, and %v", x.count, x.get(k), k, len(want), want[k])
			}
		}
		for k, r := range want {
			if x.get(k) != r {
				t.Fatalf("%q is %v, want %v", k, x.get(k), r)
			}
		}
	})
}

// TestSnapshotsKeepTheirRequests: what is submitted later, or forgotten, is as it was
// there; and a snapshot that goes on knows them.
func TestSnapshotsKeepTheirRequests(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.ok(&SubmitJob{RequestID: "a", Spec: spec(1)})
	view := f.s.Snapshot()
	f.ok(&SubmitJob{RequestID: "b", Spec: spec(1)})
	f.i += uint64(RequestWindow/time.Second) + 1
	f.ok(&SubmitJob{RequestID: "c", Spec: spec(1)})
	if f.s.Request("a") != nil || f.s.Request("c") == nil {
		t.Error("the state does not know its own requests")
	}
	if view.Request("a") == nil || view.Request("b") != nil || view.Fork(nil).Request("a") != nil {
		t.Error("the snapshot does not know its own requests, or its fork does")
	}
	for i := range 2 { // the first submission finds the index not made yet
		again := view.Apply(view.Index()+1, view.Now(), &SubmitJob{RequestID: "a", Spec: spec(1)})
		next := view.Apply(view.Index()+1, view.Now(), &SubmitJob{RequestID: "d", Spec: spec(1)})
		if !again.Duplicate || next.Duplicate != (i > 0) {
			t.Errorf("submitted again it is %+v, and another one %+v", again, next)
		}
	}
	if err := view.Check(); err != nil {
		t.Error(err)
	}
}
