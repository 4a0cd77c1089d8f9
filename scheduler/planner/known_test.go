package planner

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestKnown: what is known of jobs is what two maps would say.
func TestKnown(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var k known
		entries, runs := map[cluster.JobID]*entry{}, map[cluster.JobID]*run{}
		for range rapid.IntRange(1, 200).Draw(t, "changes") {
			id := cluster.JobID(rapid.Uint64Range(1, 300).Draw(t, "id"))
			switch {
			case entries[id] != nil && rapid.Bool().Draw(t, "starts"):
				runs[id] = &run{job: entries[id].job}
				k.startEntry(id, runs[id])
				delete(entries, id)
			case entries[id] != nil:
				k.dropEntry(id)
				delete(entries, id)
			case runs[id] == nil && rapid.Bool().Draw(t, "waits"):
				entries[id] = &entry{job: &cluster.Job{ID: id}}
				k.addEntry(entries[id])
			case runs[id] == nil:
				runs[id] = &run{job: &cluster.Job{ID: id}}
				k.addRun(id, runs[id])
			default:
				k.dropRun(id)
				delete(runs, id)
			}
			other := cluster.JobID(rapid.Uint64Range(0, 1000).Draw(t, "other"))
			if k.entry(other) != entries[other] || k.run(other) != runs[other] || k.at(id) != (slot{entries[id], runs[id]}) {
				t.Fatalf("of jobs %d and %d something else is known than should be", id, other)
			}
		}
		if k.waiting != len(entries) || k.holding != len(runs) {
			t.Fatalf("%d wait and %d hold GPUs, not %d and %d", k.waiting, k.holding, len(entries), len(runs))
		}
		for e := range k.entries() {
			if e != entries[e.job.ID] {
				t.Fatalf("job %d waits", e.job.ID)
			}
			delete(entries, e.job.ID)
		}
		for r := range k.runs() {
			if r != runs[r.job.ID] {
				t.Fatalf("job %d holds GPUs", r.job.ID)
			}
			delete(runs, r.job.ID)
		}
		if len(entries)+len(runs) > 0 {
			t.Fatalf("nothing is known of %v and %v", slices.Sorted(maps.Keys(entries)), slices.Sorted(maps.Keys(runs)))
		}
	})
}
