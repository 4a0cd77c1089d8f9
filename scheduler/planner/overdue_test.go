package planner

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestOverdueIsNoticed: whatever happens, the heap of those that will be overdue
// says what a look at all who wait says, and running jobs know their group.
func TestOverdueIsNoticed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		w.try(&cluster.SetPolicy{Policy: drawPolicy(t, gpus), Any: true})
		for range rapid.IntRange(5, 30).Draw(t, "rounds") {
			w.happen(t, gpus)
			w.pass(time.Duration(rapid.SampledFrom([]int{0, 60, 600, 40_000}).Draw(t, "pass")) * time.Second)
			p := w.plan(rapid.Bool().Draw(t, "thorough"))
			w.enact(&p)
			w.plan(false) // follows
			x, want := w.x, false
			for r := range x.jobs.runs() {
				if r.planned {
					continue // no market asks
				}
				if got, want := x.offsetBeside(r), x.offsetAt(r.q, r.job.User); got != want {
					t.Fatalf("fair share puts %s of %s back by %d ms, a running job's is put back by %d", r.job.User, r.q, want, got)
				}
			}
			for e := range x.jobs.entries() {
				want = want || e.lane != nil && x.kept[e.job.ID] == nil && x.overdue(e)
			}
			if b := &x.policy.Backfill; b.Off || b.Reserve == 0 {
				continue // nobody asks
			}
			got := x.anyOverdue()
			if x.now += 1e9; got && !want { // within a second?
				for e := range x.jobs.entries() {
					want = want || e.lane != nil && x.kept[e.job.ID] == nil && x.overdue(e)
				}
			}
			if x.now -= 1e9; got != want {
				t.Fatalf("somebody is overdue: %t, says the heap: %t", want, got)
			}
		}
	})
}
