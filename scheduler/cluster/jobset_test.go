package cluster

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// copyOfJobSet is a set with what should be in it, and its owner.
type copyOfJobSet struct {
	jobSet
	own  *owner
	want map[JobID]bool
}

// TestJobSetIsASetThatCopies: it has what a set has, in order, and copies go their own ways.
func TestJobSetIsASetThatCopies(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.Uint64Range(1, 200), rapid.Uint64Range(4000, 4200), rapid.SampledFrom([]uint64{0, 1 << 20, 1 << 40, 1<<64 - 1}))
		var jobs table[Job]
		all := []*copyOfJobSet{{own: new(owner), want: map[JobID]bool{}}}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			c := all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
			id := JobID(key.Draw(t, "id"))
			jobs.set(all[0].own, uint64(id), &Job{ID: id}, false)
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				next := *c
				c.own, next.own = new(owner), new(owner) // as State.Snapshot does
				next.want = maps.Clone(c.want)
				all = append(all, &next)
			case 1, 2, 3, 4:
				c.drop(c.own, id)
				delete(c.want, id)
			default:
				c.add(c.own, id)
				c.want[id] = true
			}
			for _, c := range all {
				var got []JobID
				c.scan(&jobs, func(j *Job) bool {
					got = append(got, j.ID)
					return true
				})
				if want := slices.Sorted(maps.Keys(c.want)); !slices.Equal(got, want) || c.count != len(want) || c.contains(id) != c.want[id] {
					t.Fatalf("it has %d: %v, want %v; job %d: %t", c.count, got, want, id, c.contains(id))
				}
			}
		}
	})
}
