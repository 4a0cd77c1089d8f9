package planner

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// ask asks an index all that can be asked about a job, and checks that the
// answers agree with each other.
func ask(t *rapid.T, x *Index, j *cluster.Job, order []cluster.JobID) {
	ex := x.Explain(j)
	fit, fits := x.Fits(j)
	if fits != (ex.Binding == BindNothing) {
		t.Fatalf("job %d (%s): it fits: %v, but what binds is %s: %s", j.ID, j.Spec.Wants(), fits, ex.Binding, ex.Text)
	}
	gpus := int32(0)
	for _, n := range fit.Nodes {
		gpus += n.GPUs
	}
	if fits && gpus != 0 && (gpus < j.Spec.Least() || gpus > j.Spec.GPUs) {
		t.Fatalf("job %d (%s) would get %d GPUs: %v", j.ID, j.Spec.Wants(), gpus, fit.Nodes)
	}
	if ex.Text == "" {
		t.Fatalf("job %d: %s without a word", j.ID, ex.Binding)
	}
	if e := x.jobs.entry(j.ID); e != nil && e.lane != nil {
		place, of, about := x.Position(j)
		if at := slices.Index(order, j.ID) + 1; about || place != at || of > len(order) {
			t.Fatalf("job %d is at place %d of %d (about: %v), in order it is %d of %d", j.ID, place, of, about, at, len(order))
		}
	}
	x.LargestNow(j)
	stops, _ := x.DryRun(j)
	for _, s := range stops {
		if s.Cost <= 0 || s.For != j.ID {
			t.Fatalf("job %d would stop job %d for job %d at a cost of %d", j.ID, s.Job, s.For, s.Cost)
		}
	}
}

// TestAskingChangesNothing: an index that is asked all about all jobs, and about
// jobs that do not exist, makes the same plans as one that is not.
func TestAskingChangesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		w.try(&cluster.SetPolicy{Policy: drawPolicy(t, gpus), Any: true})
		var asked Index
		for range rapid.IntRange(5, 25).Draw(t, "rounds") {
			w.happen(t, gpus)
			w.pass(time.Duration(rapid.SampledFrom([]int{0, 1, 60, 600}).Draw(t, "pass")) * time.Second)
			thorough := rapid.Bool().Draw(t, "thorough")
			p := w.plan(thorough)
			asked.Follow(w.s)
			if diff := cmp.Diff(p, asked.Plan(w.now, w.cfg, thorough)); diff != "" {
				t.Fatalf("- not asked + asked:\n%s", diff)
			}
			order := asked.InOrder()
			left := 3
			w.s.EachPending(func(j *cluster.Job) bool {
				ask(t, &asked, j, order)
				left--
				return left > 0
			})
			if s := drawSpec(t, len(w.s.Policy().Queues) > 0); s.Validate() == nil {
				imagined := &cluster.Job{ID: 1 << 40, Spec: s, User: "eve", State: cluster.Pending, SubmittedAt: w.now, PendingAt: w.now}
				ask(t, &asked, imagined, order)
			}
			w.enact(&p)
		}
	})
}

// TestPlansThatAreTakenBack: an index that plans for no one, as that of a server
// that does not lead, counts as one that reads the state for the first time,
// though other starts than its own come true.
func TestPlansThatAreTakenBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		w.try(&cluster.SetPolicy{Policy: drawPolicy(t, gpus), Any: true})
		var shadow Index
		for range rapid.IntRange(5, 25).Draw(t, "rounds") {
			w.happen(t, gpus)
			shadow.Retract()
			shadow.Follow(w.s.Snapshot())
			var fresh Index
			fresh.Follow(w.s)
			if shadow.jobs.waiting != fresh.jobs.waiting || shadow.jobs.holding != fresh.jobs.holding {
				t.Fatalf("%d jobs wait and %d run, not %d and %d", shadow.jobs.waiting, shadow.jobs.holding, fresh.jobs.waiting, fresh.jobs.holding)
			}
			for _, gpuType := range fresh.fleet.Types() {
				if diff := cmp.Diff(fresh.fleet.Type(gpuType), shadow.fleet.Type(gpuType)); diff != "" {
					t.Fatalf("- rebuilt + taken back, of type %s:\n%s", gpuType, diff)
				}
				for _, path := range paths {
					if f, s := fresh.tree.Used(fresh.tree.Queue(path), gpuType), shadow.tree.Used(shadow.tree.Queue(path), gpuType); f != s {
						t.Fatalf("queue %s holds %d of type %s, not %d", path, s, gpuType, f)
					}
				}
			}
			shadow.Plan(w.now, w.cfg, false)
			w.happen(t, gpus)
			w.pass(time.Duration(rapid.SampledFrom([]int{0, 11, 60, 600}).Draw(t, "pass")) * time.Second)
			p := w.plan(true)
			w.enact(&p)
		}
	})
}
