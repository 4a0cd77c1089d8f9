package planner

import "slices"

// listsClaimers fails unless those who claim in their order are who would come
// if one after the other were taken out of its lane.
func (m *market) listsClaimers(w *world) {
	list, all := m.claimers()
	if !all {
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
	if !slices.Equal(list, want) {
		w.t.Fatalf("%d claimers are listed, want %d", len(list), len(want))
	}
}

// idles fails if looks at those that wait for room are left out that would find something.
func (w *world) idles() {
	x := w.x
	if b := &x.policy.Backfill; b.Off || b.Reserve == 0 {
		return // nobody is looked at
	}
	x.left, x.looks = 1, 1
	x.openFills()
	if !x.looksIdle() {
		return
	}
	mark := x.fleet.Mark()
	defer x.fleet.Undo(mark)
	for _, e := range x.pending { // any order: each is looked at
		l := e.lane
		if l == nil || l.pos < 0 || !l.shape.closed {
			continue
		}
		types, _ := x.allowed(l)
		if _, fits := x.place(e, types); fits || x.barred(l) || x.kept[e.job.ID] == nil && x.overdue(e) {
			w.t.Fatalf("a look at job %d is left out, and would find something", e.job.ID)
		}
	}
}

// saysStill fails if the reason of a shape is not looked for again that would be another.
func (w *world) saysStill() {
	x := w.x
	for _, sh := range x.shapes {
		if sh == nil || !sh.closed || sh.lanes.len() == 0 || sh.why == "" || sh.as != x.whyAs(sh.as.keeper) {
			continue
		}
		was := sh.why
		if x.sayWhy(sh); sh.why != was {
			w.t.Fatalf("shape %d: %q holds no more: %q", sh.ID, was, sh.why)
		}
	}
}
