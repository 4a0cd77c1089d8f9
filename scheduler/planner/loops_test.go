package planner

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestPreemptionEnds: jobs that never end, on a cluster that cannot hold all of
// them: whatever they are, each is stopped for others at most as often as the
// policy lets it (but to give back borrowed quota), and not before it has had its
// guaranteed time.
func TestPreemptionEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := cluster.DefaultPolicy()
		p.Order = rapid.SampledFrom([]cluster.OrderName{cluster.OrderGangline, cluster.OrderLAS}).Draw(t, "order")
		p.Preemption.MinRuntime = time.Duration(rapid.IntRange(0, 2).Draw(t, "min_runtime")) * 10 * time.Minute
		p.Preemption.MaxPerJob = int32(rapid.IntRange(0, 6).Draw(t, "max_per_job"))
		w := newWorld(t, p)
		for _, name := range []string{"a", "b"}[:rapid.IntRange(1, 2).Draw(t, "nodes")] {
			w.join(machine(name, 4, "h100", ""))
		}
		for range rapid.IntRange(2, 8).Draw(t, "jobs") {
			s := spec("default", int32(rapid.IntRange(1, 4).Draw(t, "gpus")))
			s.Priority = int32(rapid.SampledFrom([]int{50, 50, 50, 60}).Draw(t, "priority"))
			if rapid.IntRange(0, 3).Draw(t, "elastic") == 0 {
				s.MinGPUs = 1
			}
			w.serial++
			w.apply(&cluster.SubmitJob{RequestID: string(rune('a' + w.serial)), User: "ann", Spec: s})
			w.pass(time.Minute)
			w.turn()
			w.runAll()
		}
		for range 300 { // two days
			w.pass(10 * time.Minute)
			plan := w.plan(true)
			for _, e := range plan.Evicts {
				j := w.s.Job(e.Job)
				if e.Cause == cluster.StopPreempt && w.now.Sub(j.StartedAt) < p.Preemption.MinRuntime {
					t.Fatalf("job %d is stopped %s after its start: %s", j.ID, w.now.Sub(j.StartedAt), e.Reason)
				}
			}
			w.enact(&plan)
			w.obey()
			plan = w.plan(false)
			w.enact(&plan)
			w.runAll()
		}
		w.s.EachJob(func(j *cluster.Job) bool {
			if j.Preemptions > p.Preemption.MaxPerJob {
				t.Fatalf("job %d (%s, priority %d) was stopped %d times, %d are allowed", j.ID, j.Spec.Wants(), j.Spec.Priority, j.Preemptions, p.Preemption.MaxPerJob)
			}
			return true
		})
	})
}
