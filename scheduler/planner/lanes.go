package planner

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// enqueue puts a pending job into its lane, or to sleep until its back-off ends.
func (x *Index) enqueue(j *cluster.Job) {
	e := x.newEntry(j)
	x.jobs.addEntry(e)
	x.news = true
	if j.Unmet != 0 {
		x.behind++ // until the state says that it may start
		return
	}
	q := x.tree.Queue(j.Spec.Queue)
	x.tree.Pend(q, j.User, 1)
	if j.Kept != nil {
		x.keep(j)
	}
	if j.NotBefore > x.now {
		x.asleep.push(sleeper{e})
		return
	}
	x.line(e, q)
}

// entryBatch is how many entries are made at a time: so few, since the last of
// them that is in use keeps all in memory.
const entryBatch = 8

func (x *Index) newEntry(j *cluster.Job) *entry {
	if len(x.entryRoom) == 0 {
		x.entryRoom = make([]entry, entryBatch)
	}
	e := &x.entryRoom[0]
	x.entryRoom = x.entryRoom[1:]
	e.job, e.pos = j, -1
	return e
}

// line puts an entry into its lane of a queue.
func (x *Index) line(e *entry, q *quota.Queue) {
	e.key = x.keyOf(e.job)
	l := x.laneOf(e.job, q)
	e.lane = l
	x.ask(l.shape.Shape, 1)
	x.ripen(e)
	head := l.jobs.top()
	l.jobs.push(e)
	if l.jobs.top() != head {
		x.moveLane(l)
	}
	if l.blocked != "" && e.job.Reason != l.blocked {
		x.unsay(e)
	}
}

// dequeue takes an entry that is dropped from where it waits: the job starts, or is
// no longer pending.
func (x *Index) dequeue(e *entry) {
	if e.job.Unmet != 0 {
		x.behind--
		return
	}
	x.unkeep(e.job.ID)
	l := e.lane
	if l == nil {
		x.tree.Pend(x.tree.Queue(e.job.Spec.Queue), e.job.User, -1)
		x.asleep.remove(sleeper{e})
		return
	}
	x.tree.Pend(l.q, e.job.User, -1)
	if l.jobs.len() == 1 {
		x.dropLane(l)
		l.jobs.remove(e)
		x.rest(l)
		return
	}
	head := l.jobs.top() == e
	l.jobs.remove(e)
	if head {
		x.moveLane(l)
	}
}

// dropLane takes a lane whose last job leaves it out of wherever it is.
func (x *Index) dropLane(l *lane) {
	l.gone = true
	x.removeLane(l)
	if l.parked != nil {
		l.parked.drop(l)
	}
	if l.held {
		x.dropHeld(l)
	}
	x.byQueue[l.q.ID] = without(x.byQueue[l.q.ID], l)
	l.group.lanes = without(l.group.lanes, l)
	if x.blocker == l {
		x.blocker = nil
	}
	if a := x.arrays[l.array]; a != nil {
		if a.lanes = without(a.lanes, l); len(a.lanes) == 0 && a.holding == 0 {
			delete(x.arrays, l.array)
		}
	}
}

// lanesOf are the lanes of a queue, in the order in which they were made.
func (x *Index) lanesOf(q *quota.Queue) []*lane {
	if q.ID < len(x.byQueue) {
		return x.byQueue[q.ID]
	}
	return nil
}

// without returns a list less one lane; the order of the rest is kept.
func without(list []*lane, l *lane) []*lane {
	return slices.DeleteFunc(list, func(o *lane) bool { return o == l })
}

// laneOf returns the lane of a job in a queue, made if there is none.
func (x *Index) laneOf(j *cluster.Job, q *quota.Queue) *lane {
	fs := x.fleet.Shape(j.Spec)
	key := laneKeyOf(j, q, fs)
	l := x.recent
	if l == nil || l.laneKey != key { // often several alike come one after the other
		l = x.lanes[key]
	}
	switch {
	case l == nil:
		l = x.makeLane(key, q, fs)
	case l.rests:
		x.rouse(l)
	default:
		x.recent = l
		return l
	}
	x.recent = l
	x.join(l)
	l.borrow = x.borrows(l)
	for q.ID >= len(x.byQueue) {
		x.byQueue = append(x.byQueue, nil)
	}
	x.byQueue[q.ID] = append(x.byQueue[q.ID], l)
	if key.array != 0 {
		x.arrayOf(key.array).lanes = append(x.arrayOf(key.array).lanes, l)
	}
	return l
}

func (x *Index) makeLane(key laneKey, q *quota.Queue, fs *fleet.Shape) *lane {
	for fs.ID >= len(x.shapes) {
		x.shapes = append(x.shapes, nil)
	}
	if x.shapes[fs.ID] == nil {
		x.shapes[fs.ID] = &shape{Shape: fs, pos: -1}
	}
	l := &lane{laneKey: key, q: q, shape: x.shapes[fs.ID], group: x.groupOf(q, key.user), pos: -1, wpos: -1}
	l.need = int64(fs.Least) * int64(fs.Share)
	x.lanes[key] = l
	return l
}

func (x *Index) arrayOf(id cluster.JobID) *array {
	a := x.arrays[id]
	if a == nil {
		a = &array{}
		x.arrays[id] = a
	}
	return a
}

// moveLane brings a lane to its place after its first job, its offset or its
// standing with its queue has changed.
func (x *Index) moveLane(l *lane) {
	switch {
	case l.parked != nil:
		l.parked.row(l.need).lanes.fix(waiter{l})
	case l.held:
	case l.pos < 0:
		x.addLane(l)
	default:
		l.shape.lanes.fix(l)
		if l.shape.pos >= 0 {
			x.open.fix(l.shape)
		}
	}
}

func (x *Index) addLane(l *lane) {
	sh := l.shape
	if l.pos >= 0 {
		return
	}
	sh.lanes.push(l)
	sh.inTurn = sh.inTurn && l.blocked == strictText
	switch {
	case sh.closed:
		x.say(l, sh.why)
	case sh.pos < 0:
		x.open.push(sh)
	default:
		x.open.fix(sh)
	}
}

func (x *Index) removeLane(l *lane) {
	if l.pos < 0 {
		return
	}
	sh := l.shape
	sh.lanes.remove(l)
	switch {
	case sh.pos < 0:
	case sh.lanes.len() == 0:
		x.open.remove(sh)
	default:
		x.open.fix(sh)
	}
}

// park takes a lane out until a queue has room for it.
func (x *Index) park(l *lane, key parkKey) {
	x.leave(l)
	w := x.parked[key]
	if w == nil {
		w = &waitlist{key: key}
		x.parked[key] = w
	}
	w.add(l)
}

// unpark lets lanes go on that wait for the limit of a queue, or of one above
// it, now that it holds less.
func (x *Index) unpark(q *quota.Queue, user, gpuType string) {
	if len(x.parked) == 0 {
		return
	}
	for ; q != nil; q = q.Parent() {
		x.unparkAt(parkKey{queue: q.ID, gpuType: gpuType})
		x.unparkAt(parkKey{queue: q.ID})
		x.unparkAt(parkKey{queue: q.ID, user: user})
	}
}

// unparkAt lets the first lane go on that the limit has room for. The next one
// follows once this one has been tried: many may wait for one GPU.
func (x *Index) unparkAt(key parkKey) {
	w := x.parked[key]
	if w == nil {
		return
	}
	var best *lane
	for _, r := range w.rows {
		l := r.lanes.top().lane
		if l == nil {
			continue
		}
		if _, blocked := x.allowed(l); blocked != nil {
			break // the others need more
		}
		if best == nil || l.before(best) {
			best = l
		}
	}
	if best != nil {
		w.drop(best)
		best.from = w
		x.moveLane(best)
	}
}

// followUp lets the next of those go on that waited with a lane, after that
// has been tried.
func (x *Index) followUp(w *waitlist) {
	if w != nil {
		x.unparkAt(w.key)
	}
}

// requote looks again whether the lanes of a queue would borrow, after what it
// holds has changed. Those of other queues under a common quota follow within a
// second, see requoteAll: each start would move all of them otherwise.
func (x *Index) requote(q *quota.Queue) {
	if !x.hasQuota {
		return
	}
	lanes := x.lanesOf(q)
	if len(lanes) == 0 {
		return
	}
	covered := x.coveredOf(q)
	for _, l := range lanes {
		x.setBorrow(l, x.beyond(l, covered))
	}
}

// requoteAll looks again whether the lanes of all queues would borrow.
func (x *Index) requoteAll() {
	if !x.hasQuota {
		return
	}
	for _, q := range x.tree.Queues() {
		x.requote(q)
	}
}

func (x *Index) setBorrow(l *lane, borrow bool) {
	if borrow != l.borrow {
		l.borrow, x.news = borrow, true
		if l.pos >= 0 || l.parked != nil {
			x.moveLane(l)
		}
	}
}
