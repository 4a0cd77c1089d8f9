package planner

// sound fails unless the index is in order in itself: each lane is in one place
// and at its place there, and is moved by fair share as its group is.
func (w *world) sound() {
	w.t.Helper()
	x := w.x
	for i, g := range x.running {
		if g.roster.place != i || len(g.roster.all) == 0 || x.groups[groupKey{g.q.ID, g.user}] != g {
			w.t.Fatalf("group %s in %s is at %d, and takes itself to be at %d", g.user, g.q, i, g.roster.place)
		}
		for i, r := range g.roster.all {
			if int(r.place) != i || r.planned || r.group != g || x.jobs.run(r.job.ID) != r {
				w.t.Fatalf("job %d is at %d of its group's roster, and takes itself to be at %d", r.job.ID, i, r.place)
			}
		}
	}
	lanes := 0
	for key, g := range x.groups {
		runs, held := int32(0), 0
		for r := range x.jobs.runs() {
			if r.group == g {
				runs++
				held += count(!r.planned, 1)
			}
		}
		if held != len(g.roster.all) {
			w.t.Fatalf("%d jobs of group %+v hold GPUs, %d are in its roster", held, key, len(g.roster.all))
		}
		resting := int32(0)
		for _, l := range x.resting {
			resting += int32(count(l.group == g, 1))
		}
		if runs != g.runs || resting != g.resting || int(runs+resting)+len(g.lanes) == 0 {
			w.t.Fatalf("group %+v has %d lanes, %d more that rest and %d running jobs, it counts %d and %d", key, len(g.lanes), resting, runs, g.resting, g.runs)
		}
		for _, l := range g.lanes {
			lanes++
			if x.lanes[l.laneKey] != l || l.group != g || l.offset != g.offset || l.jobs.len() == 0 || l.aside != asideNot {
				w.t.Fatalf("lane %+v: offset %d, its group's %d, %d jobs, aside %d", l.laneKey, l.offset, g.offset, l.jobs.len(), l.aside)
			}
			w.placed(l)
			sorted(w, "jobs of a lane", &l.jobs)
		}
	}
	for i, l := range x.resting {
		lanes++
		if x.lanes[l.laneKey] != l || !l.rests || l.restsAt != i || l.jobs.len() > 0 || l.pos >= 0 || l.held || l.parked != nil || l.blocked != "" {
			w.t.Fatalf("lane %+v rests at %d as %+v", l.laneKey, i, l)
		}
	}
	if lanes != len(x.lanes) || len(x.resting) > maxResting {
		w.t.Fatalf("%d lanes in groups or resting, %d known, %d rest", lanes, len(x.lanes), len(x.resting))
	}
	sorted(w, "open shapes", &x.open)
	closed := 0
	for i, sh := range x.closed {
		if !sh.closed || int(sh.place) != i {
			w.t.Fatalf("shape %d is at %d of the closed ones: closed %v, at %d", sh.ID, i, sh.closed, sh.place)
		}
	}
	for _, sh := range x.shapes {
		if sh == nil {
			continue
		}
		closed += count(sh.closed, 1)
		sorted(w, "lanes of a shape", &sh.lanes)
		if open := !sh.closed && sh.lanes.len() > 0; open != (sh.pos >= 0) {
			w.t.Fatalf("shape %d: closed %v, %d lanes, at %d of the open ones", sh.ID, sh.closed, sh.lanes.len(), sh.pos)
		}
	}
	for _, sh := range x.open.items {
		for _, l := range sh.lanes.items {
			if sh.inTurn && l.blocked != strictText {
				w.t.Fatalf("lane %+v is of a shape whose lanes all say that they wait their turn, and says %q", l.laneKey, l.blocked)
			}
		}
	}
	if closed != len(x.closed) {
		w.t.Fatalf("%d shapes are closed, %d are counted", closed, len(x.closed))
	}
	for _, list := range x.parked {
		for _, r := range list.rows {
			sorted(w, "lanes behind a limit", &r.lanes)
		}
	}
}

// placed fails unless a lane is where it says.
func (w *world) placed(l *lane) {
	w.t.Helper()
	places := 0
	if l.pos >= 0 {
		places++
		if l.shape.lanes.items[l.pos] != l {
			w.t.Fatalf("lane %+v is not at its place in its shape", l.laneKey)
		}
	}
	if l.held {
		places++
	}
	if l.parked != nil {
		places++
		if l.wpos < 0 || l.parked.row(l.need).lanes.items[l.wpos].lane != l {
			w.t.Fatalf("lane %+v is not at its place behind a limit", l.laneKey)
		}
	}
	if nowhere := places == 0; places > 1 || nowhere && !w.x.arrayFull(l.jobs.top().job) {
		w.t.Fatalf("lane %+v is in %d places", l.laneKey, places)
	}
}

// sorted fails unless a heap is one.
func sorted[T ranked[T]](w *world, what string, h *heapOf[T]) {
	w.t.Helper()
	for i, item := range h.items {
		if item.at() != i || i > 0 && item.before(h.items[(i-1)/2]) {
			w.t.Fatalf("%s: %d of %d is not at its place", what, i, h.len())
		}
	}
}

// sortedOut fails unless each lane waits where it does for what stands against
// it: to be called after a thorough plan.
func (w *world) sortedOut() {
	w.t.Helper()
	if len(w.x.kept) > 0 {
		return // what is kept counts against limits during the plan, see holdLimits
	}
	for _, l := range w.x.lanes {
		if l.rests {
			continue
		}
		_, blocked := w.x.allowed(l)
		full := w.x.arrayFull(l.jobs.top().job)
		waits := l.held || l.pos >= 0 && l.shape.closed
		if waits && (full || blocked != nil) || l.parked != nil && (full || blocked == nil) {
			w.t.Fatalf("lane %+v: waits for room %v, for a limit %v, behind a limit %v, array full %v", l.laneKey, waits, l.parked != nil, blocked != nil, full)
		}
	}
}
