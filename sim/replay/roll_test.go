package replay

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestRoll: a roll finds what a map would, and keeps no page without jobs.
func TestRoll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r, want := roll{}, map[cluster.JobID]*attempt{}
		next := cluster.JobID(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "comes") || len(want) == 0 {
				next += cluster.JobID(rapid.IntRange(1, pageJobs).Draw(t, "ahead"))
				a := &attempt{id: next}
				want[next] = a
				r.add(a)
			} else {
				id := rapid.SampledFrom(slices.Sorted(maps.Keys(want))).Draw(t, "ends")
				delete(want, id)
				r.drop(id)
			}
			for id := range next + pageJobs {
				if r.get(id) != want[id] {
					t.Fatalf("job %d: %v, want %v", id, r.get(id), want[id])
				}
			}
		}
		all := r.all()
		if !slices.IsSortedFunc(all, func(a, b *attempt) int { return int(a.id) - int(b.id) }) || len(all) != len(want) || r.count != len(want) {
			t.Fatalf("%d of %d jobs, or out of order", len(all), len(want))
		}
		pages := map[cluster.JobID]bool{}
		for id := range want {
			pages[id/pageJobs] = true
		}
		kept := 0
		for _, p := range r.pages {
			if p != nil {
				kept++
			}
		}
		if kept != len(pages) {
			t.Fatalf("%d pages are kept, %d have jobs", kept, len(pages))
		}
	})
}
