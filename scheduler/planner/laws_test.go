package planner

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// happen lets one random thing happen to a world.
func (w *world) happen(t *rapid.T, gpus int64) {
	pick := func(ids []cluster.JobID) cluster.JobID {
		if len(ids) == 0 {
			return 0
		}
		return rapid.SampledFrom(ids).Draw(t, "job")
	}
	node := func() *cluster.Node {
		return w.s.Node(cluster.NodeID(fmt.Sprintf("n%d", rapid.IntRange(0, w.s.Nodes()-1).Draw(t, "node"))))
	}
	switch what := rapid.IntRange(0, 19).Draw(t, "what"); what {
	case 0, 1, 2, 3, 4, 5:
		s := drawSpec(t, len(w.s.Policy().Queues) > 0)
		if w.plain {
			s.Priority, s.MinGPUs, s.OnFailure, s.Array = 50, 0, 0, cluster.ArraySpec{}
		}
		w.serial++
		w.try(&cluster.SubmitJob{RequestID: fmt.Sprint(w.serial), User: rapid.SampledFrom(users).Draw(t, "user"), Spec: s})
	case 6, 7:
		if id := pick(w.ids(cluster.Running)); id != 0 {
			w.end(id)
		}
	case 8:
		if id := pick(w.ids(cluster.Running, cluster.Starting)); id != 0 {
			w.report(id, cluster.WorkerExited, 1)
		}
	case 9, 10:
		w.runAll()
	case 11, 12:
		w.obey()
	case 13:
		if id := pick(w.ids(cluster.Running, cluster.Pending)); id != 0 {
			w.apply(&cluster.CancelJob{Job: id})
		}
	case 14:
		if id := pick(w.ids(cluster.Running)); id != 0 {
			w.apply(&cluster.RecordCheckpoint{Job: id, Epoch: w.s.Job(id).Epoch, Step: int64(w.now), Path: "/c"})
		}
	case 15:
		n := node()
		w.apply(&cluster.LoseNode{Node: n.ID, Incarnation: n.Incarnation, Reason: "gone"})
	case 16:
		n := *node()
		n.Incarnation++
		if rapid.Bool().Draw(t, "moves") {
			n.Labels = []cluster.Label{{Key: "topology.gangline.dev/rack", Value: "r1"}}
		}
		w.try(&cluster.RegisterNode{Node: n})
	case 17:
		w.apply(&cluster.DrainNode{Node: node().ID, Off: rapid.Bool().Draw(t, "undrain"), Reason: "fan"})
	case 18:
		w.drawWindow(t)
	case 19:
		if rapid.IntRange(0, 2).Draw(t, "new-policy") == 0 {
			w.try(&cluster.SetPolicy{Policy: drawPolicy(t, gpus), Any: true})
		}
	}
}

// drawWindow reserves nodes for a while.
func (w *world) drawWindow(t *rapid.T) {
	p := *w.s.Policy()
	win := cluster.Window{
		Name:  "w",
		Start: w.now.Add(time.Duration(rapid.IntRange(-5, 20).Draw(t, "start")) * time.Minute),
		Nodes: []string{fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "reserved"))},
	}
	win.End = win.Start.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "lasts")) * time.Minute)
	if win.Maintenance = len(p.Queues) == 0 || rapid.Bool().Draw(t, "maintenance"); !win.Maintenance {
		win.Queue = rapid.SampledFrom(paths).Draw(t, "queue")
	}
	p.Windows = []cluster.Window{win}
	w.try(&cluster.SetPolicy{Policy: &p, Any: true})
}

// TestPlanLaws: whatever happens, Apply accepts all of every plan, and what
// must hold holds.
func TestPlanLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		w.try(&cluster.SetPolicy{Policy: drawPolicy(t, gpus), Any: true})
		for range rapid.IntRange(20, 60).Draw(t, "rounds") {
			w.happen(t, gpus)
			w.pass(time.Duration(rapid.SampledFrom([]int{0, 0, 1, 60, 600}).Draw(t, "pass")) * time.Second)
			thorough := rapid.IntRange(0, 3).Draw(t, "thorough") > 0
			p := w.plan(thorough)
			w.sound()
			if thorough {
				w.sortedOut()
			}
			if rapid.IntRange(0, 9).Draw(t, "lost") == 0 {
				continue // the log did not take it
			}
			w.enact(&p)
		}
	})
}

// agreed plans, and fails unless an index that reads the state for the first time
// makes the same plan. What is refreshed more seldom than all else is refreshed;
// fair shares only if a factorPeriod has passed since the last plan.
func (w *world) agreed() Plan {
	w.t.Helper()
	w.x.roundAt, w.x.mixAt = 0, -1
	if w.x.mixTotal > 0 {
		w.x.mixCounts, w.x.mixTotal = nil, 1 // not a mix that any cluster has
	}
	p := w.plan(true)
	fresh := Make(w.s, w.now, w.cfg)
	p.Reasons, fresh.Reasons = nil, nil
	if diff := cmp.Diff(fresh, p); diff != "" {
		w.t.Fatalf("- rebuilt + followed:\n%s", diff)
	}
	return p
}

// TestFollowedIndexPlansAsRebuilt: an index that has followed all that happened
// makes the same plan as one that reads the state for the first time, once
// what is refreshed seldom has been.
func TestFollowedIndexPlansAsRebuilt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		w.try(&cluster.SetPolicy{Policy: drawPolicy(t, gpus), Any: true})
		for range rapid.IntRange(20, 60).Draw(t, "rounds") {
			w.happen(t, gpus)
			if rapid.Bool().Draw(t, "quick") {
				p := w.plan(false)
				w.enact(&p)
				continue
			}
			w.pass(time.Duration(rapid.SampledFrom([]int{11, 60, 600}).Draw(t, "pass")) * time.Second)
			p := w.agreed()
			if rapid.IntRange(0, 9).Draw(t, "lost") > 0 {
				w.enact(&p)
			}
		}
	})
}

// TestQuietMissesNothing: where a thorough plan is left out, it would have found
// nothing. Most worlds are such that it may be.
func TestQuietMissesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		p := drawPolicy(t, gpus)
		if w.plain = rapid.IntRange(0, 4).Draw(t, "plain") > 0; w.plain {
			p.Queues, p.Backfill.Off, p.Defrag.On = nil, false, false
		}
		w.try(&cluster.SetPolicy{Policy: p, Any: true})
		for range rapid.IntRange(20, 60).Draw(t, "rounds") {
			w.happen(t, gpus)
			for range rapid.IntRange(1, 3).Draw(t, "plans") {
				w.pass(time.Duration(rapid.SampledFrom([]int{0, 1, 11, 59, 600}).Draw(t, "pass")) * time.Second)
				w.x.Follow(w.s)
				w.x.now = w.now
				quiet := w.x.quiet(true)
				w.x.news = true
				p := w.plan(true)
				if quiet && len(p.Starts)+len(p.Evicts)+len(p.Keeps)+len(p.Reasons) > 0 {
					t.Fatalf("%+v would be left out", p)
				}
				w.enact(&p)
			}
		}
	})
}
