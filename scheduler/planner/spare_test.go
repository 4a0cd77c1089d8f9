package planner

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// listsClaimers fails unless those who claim in their order are who would come
// if one after the other were taken out of its lane.
func (m *market) listsClaimers(w *world) {
	if !m.claimers() {
		return
	}
	x := m.x
	var want, done []*entry
	for len(done) < maxLooked {
		l := x.firstBlocked()
		if l == nil || m.noneBehind(l.jobs.top()) {
			break
		}
		e := l.jobs.top()
		if _, blocked := x.allowed(l); blocked != nil || x.arrayFull(e.job) || x.moved(l) {
			w.t.Fatalf("job %d is listed without a look at what stands against it", e.job.ID)
		}
		if !m.hopeless(e) {
			want = append(want, e)
		}
		x.setAside(e)
		done = append(done, e)
	}
	x.bringAllBack(done)
	if !slices.Equal(m.hopes, want) {
		w.t.Fatalf("%d claimers are listed, want %d", len(m.hopes), len(want))
	}
}

// idles fails if looks at those that wait for room are left out that would find something.
func (w *world) idles(t *rapid.T) {
	x := w.x
	if b := &x.policy.Backfill; b.Off || b.Reserve == 0 {
		return // nobody is looked at
	}
	x.left, x.looks = 1, rapid.IntRange(1, 4).Draw(t, "looks")
	x.openFills()
	if !x.looksIdle() {
		return
	}
	var done []*entry
	for l := x.firstBlocked(); l != nil && len(done) < x.looks; l = x.firstBlocked() {
		e := l.jobs.top()
		if x.kept[e.job.ID] == nil && x.overdue(e) {
			w.t.Fatalf("a look at job %d is left out, and would find it overdue", e.job.ID)
		}
		x.setAside(e)
		done = append(done, e)
	}
	x.bringAllBack(done)
	mark := x.fleet.Mark()
	defer x.fleet.Undo(mark)
	for e := range x.jobs.entries() {
		l := e.lane
		if l == nil || l.pos < 0 || !l.shape.closed {
			continue
		}
		types, _ := x.allowed(l)
		_, barred := x.barred(l)
		if _, fits := x.place(e, types); fits || barred {
			w.t.Fatalf("a look at job %d is left out, and would find something", e.job.ID)
		}
	}
}

// TestBlockedStill: where jobs start strictly in order, the first of them is spared
// a try only if it would find nothing.
func TestBlockedStill(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		p := drawPolicy(t, gpus)
		p.Backfill.Off, p.Windows = true, nil
		if rapid.Bool().Draw(t, "unlimited") {
			p.Queues = nil
		}
		w.try(&cluster.SetPolicy{Policy: p, Any: true})
		for range rapid.IntRange(5, 30).Draw(t, "rounds") {
			w.happen(t, gpus)
			if len(p.Queues) == 0 {
				w.serial++
				sp := spec("default", rapid.SampledFrom([]int32{1, 6}).Draw(t, "gpus"))
				sp.Priority = rapid.Int32Range(49, 51).Draw(t, "priority")
				w.try(&cluster.SubmitJob{RequestID: fmt.Sprint(w.serial), User: "ann", Spec: sp})
			}
			w.pass(time.Duration(rapid.SampledFrom([]int{0, 1, 60}).Draw(t, "pass")) * time.Second)
			w.x.Follow(w.s)
			w.blocks()
			plan := w.plan(rapid.Bool().Draw(t, "thorough"))
			w.enact(&plan)
		}
	})
}

// blocks fails if the first job is spared a try that would find something.
func (w *world) blocks() {
	x := w.x
	if !x.blockedStill() {
		return
	}
	x.openAll()
	l := x.openLane()
	e := l.jobs.top()
	types, barred := x.barred(l)
	if _, fits := x.place(e, types); l != x.blocker || barred || fits {
		w.t.Fatalf("job %d is spared a try that would find something", e.job.ID)
	}
	x.closeShape(l.shape)
}

// saysStill fails if the reason of a shape is not looked for again that would be another.
func (w *world) saysStill() {
	x := w.x
	for _, sh := range x.shapes {
		if sh == nil || !sh.closed || sh.lanes.len() == 0 || sh.why == "" {
			continue
		}
		if x.fleet.Stands(&sh.said.ob, sh.Shape, sh.Least) {
			if ob := x.fleet.Why(sh.Shape, sh.Least, x.anyQuery()); !ob.Reads(&sh.said.ob) || ob.Text(sh.lanes.top().jobs.top().job.Spec) != sh.said.text {
				w.t.Fatalf("shape %d: %q (%+v) is taken to stand, it is %+v", sh.ID, sh.said.text, sh.said.ob, ob)
			}
		}
		if sh.as != x.whyAs(sh.as.keeper) {
			continue
		}
		was := sh.why
		if x.sayWhy(sh); sh.why != was {
			w.t.Fatalf("shape %d: %q holds no more: %q", sh.ID, was, sh.why)
		}
	}
}

// losesNone fails if a node that is kept is lost, or drained, and dropStale would not see it.
func (w *world) losesNone() {
	if w.x.nodesNews {
		return
	}
	for id, k := range w.x.kept {
		for _, n := range k.kept.Nodes {
			if node := w.s.Node(n); node == nil || node.State != cluster.NodeReady || node.Drain != nil {
				w.t.Fatalf("job %d: node %s is kept for it, and nobody looks how that is", id, n)
			}
		}
	}
}
