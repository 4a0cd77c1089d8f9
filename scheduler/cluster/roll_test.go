package cluster

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestRoll: a roll finds what a map would, gives it in order, and keeps no page without jobs.
func TestRoll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r Roll[int]
		want := map[JobID]int{}
		next := JobID(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			id := JobID(rapid.Uint64Range(1, uint64(next)+1).Draw(t, "any"))
			if rapid.Bool().Draw(t, "comes") {
				next += JobID(rapid.IntRange(1, 4*rollSize).Draw(t, "ahead"))
				id = next
			}
			if to := rapid.IntRange(0, 3).Draw(t, "to"); to == 0 {
				r.Set(id, 0)
				delete(want, id)
			} else {
				r.Set(id, to)
				want[id] = to
			}
			for _, other := range []JobID{id, JobID(rapid.Uint64Range(0, uint64(next)+rollSize).Draw(t, "other"))} {
				if r.At(other) != want[other] {
					t.Fatalf("job %d: %v, want %v", other, r.At(other), want[other])
				}
			}
		}
		for id := range next + 2*rollSize {
			if r.At(id) != want[id] {
				t.Fatalf("job %d: %v, want %v", id, r.At(id), want[id])
			}
		}
		var inOrder []int
		pages := map[JobID]bool{}
		for _, id := range slices.Sorted(maps.Keys(want)) {
			inOrder = append(inOrder, want[id])
			pages[id/rollSize] = true
		}
		if all := slices.Collect(r.All()); !slices.Equal(all, inOrder) || r.Len() != len(want) {
			t.Fatalf("%v (%d), want %v", all, r.Len(), inOrder)
		}
		kept := 0
		for _, p := range r.row {
			if p != nil {
				kept++
			}
		}
		if kept != len(pages) {
			t.Fatalf("%d pages are kept, %d have jobs", kept, len(pages))
		}
		if n := len(r.row); n > 0 && (r.row[0] == nil || r.row[n-1] == nil) {
			t.Fatal("the row is longer than it need be")
		}
	})
}
