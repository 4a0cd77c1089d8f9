package planner

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// Make plans once, from scratch. See Index.Plan.
func Make(s *cluster.State, now cluster.Time, cfg Config) Plan {
	var x Index
	x.Follow(s)
	return x.Plan(now, cfg, true)
}

// Plan plans once on the state that was last followed. The numbered steps are
// those of docs/ARCHITECTURE.md. Thorough asks for the steps that look at more
// than what has changed (reservations, preemption, growth, defragmentation);
// once a second is often enough for them.
func (x *Index) Plan(now cluster.Time, cfg Config, thorough bool) Plan {
	x.now = max(now, x.now)
	var plan Plan
	if x.quiet(thorough) {
		return plan
	}
	x.cfg = cfg
	if !thorough {
		x.late = x.late || x.news
	}
	// 1. What time alone has changed: back-offs that ended, reservations that
	//    began, fair shares.
	x.wake()
	if thorough {
		x.refreshMix()
	}
	deep := thorough && !x.inOrderAlone()
	if deep {
		x.requoteAll()
		x.sortOut()
		x.reopenHeld()
	}
	x.refreshOffsets()
	x.refreshWindows()
	// 2. What is kept for whom: reservations of the policy begin, others have
	//    lost their sense.
	x.news, x.left, x.looks, x.filling, x.fills = false, 0, 0, false, nil
	if deep {
		x.clearWindows(&plan)
		x.review(&plan)
		x.openFills()
	}
	// 3. Jobs for which nodes are kept, so that what has come free for them is
	//    theirs whatever their place in the order is by now, but for jobs of a
	//    higher priority that borrow nothing.
	kept := x.keptInOrder()
	if len(kept) > 0 {
		kept = x.startKept(kept, x.ahead(x.openLane(), x.nextBlocked(0), maxFill), &plan)
		defer x.holdLimits()()
	}
	// 4. All others in order, each where it fits best; what is kept for those
	//    that do not fit, those behind them do not get.
	x.blocker = x.startInOrder(&plan, kept)
	x.blockedAs = x.fleet.Version()
	if thorough && !x.inOrderAlone() { // by now
		x.sortOut()
		// 5. What may be stopped for the first that could not start.
		x.preempt(&plan)
		// 6. Elastic jobs that may grow into what is idle, and jobs that may
		//    move to make room.
		x.grow(&plan)
		x.defragment(&plan)
	}
	if thorough {
		x.reconsider()
	}
	// 7. Why the others wait.
	x.explain(&plan)
	x.tidy(&plan)
	if thorough {
		x.late = x.news // by what this plan does itself: what was kept has come free, or others come first
	}
	x.news = len(plan.Starts) >= cfg.MaxStarts
	return plan
}

// wake lines up the jobs whose back-off has ended.
func (x *Index) wake() {
	for x.asleep.len() > 0 {
		e := x.asleep.top()
		if e.job.NotBefore > x.now {
			return
		}
		x.asleep.remove(e)
		x.line(e.entry, x.tree.Queue(e.job.Spec.Queue))
	}
}

// startInOrder starts what fits, in order. It returns the lane that blocks all
// behind it, if the policy has no backfill.
func (x *Index) startInOrder(plan *Plan, kept []cluster.JobID) *lane {
	if x.policy.Backfill.Off {
		if x.blockedStill() {
			return x.blocker
		}
		x.openAll() // whether or not anything fits: the first one blocks
	}
	aside := x.aside[:0]
	defer func() {
		x.bringAllBack(aside)
		clear(aside)
		x.aside = aside[:0]
	}()
	fills, idle := maxFill, len(kept) == 0 && x.looksIdle()
	for len(plan.Starts) < x.cfg.MaxStarts {
		l := x.openLane()
		if l != nil && x.moved(l) {
			continue // what this plan has started counts at once
		}
		if idle && l != nil && x.kept[l.jobs.top().job.ID] != nil {
			idle = false // its start leaves to others what was kept for it
		}
		var b *lane
		if !idle {
			b = x.nextBlocked(len(aside))
		}
		if len(kept) > 0 {
			if rest := x.startKept(kept, x.ahead(l, b, fills), plan); len(rest) < len(kept) {
				kept = rest
				continue
			}
		}
		if f := x.nextFill(); f != nil && fills > 0 && (l == nil || f.before(l)) && (b == nil || !b.before(f)) {
			fills--
			x.news = x.news || fills == 0 // the next plan goes on
			x.tryFill(plan)
			continue
		}
		if b != nil && (l == nil || b.before(l)) {
			if _, barred := x.barred(b); !barred && !x.fill(b, plan) {
				aside = append(aside, x.reserveNext(b, plan))
			}
			continue
		}
		if l == nil {
			return nil
		}
		from := l.from
		l.from = nil
		started := x.tryLane(l, plan)
		x.followUp(from)
		idle = idle && (started || x.noneFills(l.shape, maxIdle) >= 0)
		if !started && x.policy.Backfill.Off && (l.held || l.shape.closed) {
			return l // it waits for GPUs; who waits for a limit or its array blocks nobody
		}
	}
	return nil
}

// openLane is the first lane that may fit; nil: none.
func (x *Index) openLane() *lane {
	if sh := x.open.top(); sh != nil {
		return sh.lanes.top()
	}
	return nil
}

// moved brings a lane to where it belongs by now, and reports whether it was
// elsewhere: what this plan has started may have used up what was promised.
func (x *Index) moved(l *lane) bool {
	b := x.borrows(l)
	if b == l.borrow {
		return false
	}
	x.setBorrow(l, b)
	return true
}

// tryLane starts the lane's first job, or takes the lane or its whole shape
// out until something has changed that may help.
func (x *Index) tryLane(l *lane, plan *Plan) bool {
	types, barred := x.barred(l)
	if barred {
		return false
	}
	e := l.jobs.top()
	if st, ok := x.place(e, types); ok {
		x.take(e, st, plan)
		return true
	}
	if len(types) < len(x.typesOf(l.shape)) {
		x.holdLane(l) // another queue's lane may have the other types
		x.say(l, x.heldText(l))
	} else {
		x.closeShape(l.shape)
	}
	return false
}

// barred takes a lane out whose next job may not start whatever is free, and
// reports whether it did; if not, types are those that the job may have.
func (x *Index) barred(l *lane) (types []string, barred bool) {
	if x.arrayFull(l.jobs.top().job) {
		x.leave(l) // count adds it when a member ends
		x.say(l, arrayText(l.jobs.top().job.Spec))
		return nil, true
	}
	types, blocked := x.allowed(l)
	if blocked == nil {
		return types, false
	}
	x.park(l, blocked.key(l))
	x.say(l, quotaText(l, blocked))
	return nil, true
}

// leave takes a lane out of its shape, whether or not its shape is closed or
// the lane is held.
func (x *Index) leave(l *lane) {
	if l.held {
		x.dropHeld(l)
	}
	x.removeLane(l)
}

// arrayFull reports whether as many members of a job's array run as may.
func (x *Index) arrayFull(j *cluster.Job) bool {
	most := j.Spec.Array.Parallel
	if j.Array == 0 || most == 0 {
		return false
	}
	a := x.arrays[j.Array]
	return a != nil && a.holding >= most
}

// place chooses GPUs of the given types for a job and takes them.
func (x *Index) place(e *entry, types []string) (start, bool) {
	j := e.job
	sh := e.lane.shape
	if !x.fleet.May(sh.Shape, sh.Least) {
		return start{}, false
	}
	q := x.query(j, types)
	size := sh.GPUs
	if sh.Least < sh.GPUs {
		size, q.Types = x.elasticSize(sh.Shape, &q, e.lane.q, j, types)
		if size < sh.Least {
			return start{}, false
		}
	}
	parts := x.fleet.Place(sh.Shape, size, &q)
	if parts == nil {
		return start{}, false
	}
	from := len(x.workers)
	x.workers = x.fleet.Workers(x.workers, parts, j.Spec.Launch)
	return start{workers: x.workers[from:len(x.workers):len(x.workers)], gpuType: x.fleet.TypeOf(parts)}, true
}

// start is a gang with its places.
type start struct {
	workers []cluster.Placement
	gpuType string
}

func (x *Index) take(e *entry, st start, plan *Plan) {
	x.expected = append(x.expected, Start{Job: e.job.ID, Epoch: e.job.Epoch + 1, Workers: st.workers})
	plan.Starts = x.expected[len(x.expected)-len(plan.Starts)-1:]
	x.planStart(e, st.gpuType, st.workers)
}

// query says who asks the fleet.
func (x *Index) query(j *cluster.Job, types []string) fleet.Query {
	q := fleet.Query{Job: j.ID, Priority: j.Spec.Priority, Last: !x.passes(j), Queue: j.Spec.Queue, Avoid: j.Avoid, Types: types}
	if !x.claiming {
		q.End = x.endOf(j, x.now)
	}
	return q
}

// endOf is when a job that starts at a time will be gone, or 0 if nobody knows.
func (x *Index) endOf(j *cluster.Job, started cluster.Time) cluster.Time {
	d := j.Expected
	if d > 0 {
		d = d*2 + j.Spec.Warn + j.Spec.Grace
	}
	if limit := j.Spec.TimeLimit; limit > 0 && (d == 0 || limit < d) {
		d = limit + j.Spec.Warn + j.Spec.Grace
	}
	if d == 0 {
		return 0
	}
	return started.Add(d)
}

// refusal says why a lane's next job may not have GPUs, whatever is free.
type refusal struct {
	quota.Verdict
	gpuType string
}

// key is where the lane waits.
func (r *refusal) key(l *lane) parkKey {
	switch {
	case r.Cause == quota.OwnQuota:
		return parkKey{queue: l.q.ID, gpuType: r.gpuType}
	case r.Cause == quota.UserLimit:
		return parkKey{queue: r.Blocker.ID, user: l.user}
	case r.Cause == quota.TotalLimit:
		return parkKey{queue: r.Blocker.ID}
	default:
		return parkKey{queue: r.Blocker.ID, gpuType: r.gpuType}
	}
}

// allowed returns the GPU types that the lane's next job may take now by its
// queue's limits, preferred first, or what stands against all of them.
func (x *Index) allowed(l *lane) ([]string, *refusal) {
	all := x.typesOf(l.shape)
	if x.unlimited() {
		return all, nil
	}
	for i, t := range all {
		if v := x.tree.Check(l.q, l.user, t, l.need); v.OK && x.mayBorrow(l, t) {
			continue
		}
		return x.allowedSome(l, all, i)
	}
	return all, nil
}

// unlimited reports whether the policy sets no limits: jobs wait for room alone,
// or for members of their arrays.
func (x *Index) unlimited() bool { return !x.hasQuota && !x.tree.HasLimits() }

// allowedSome is allowed where not every type may be taken.
func (x *Index) allowedSome(l *lane, all []string, from int) ([]string, *refusal) {
	types := slices.Clone(all[:from])
	var blocked *refusal
	for _, t := range all[from:] {
		v := x.tree.Check(l.q, l.user, t, l.need)
		if v.OK && x.mayBorrow(l, t) {
			types = append(types, t)
			continue
		}
		if blocked == nil {
			blocked = &refusal{Verdict: v, gpuType: t}
			if v.OK { // it may not be preempted, so it may not borrow
				blocked.Cause = quota.OwnQuota
			}
		}
	}
	if len(types) > 0 {
		return types, nil
	}
	return nil, blocked
}

// typesOf are the GPU types that a shape may have, preferred first.
func (x *Index) typesOf(sh *shape) []string {
	if len(sh.Types) > 0 {
		return sh.Types
	}
	return x.fleet.Common()
}

// elasticSize is how many GPUs an elastic job gets now, and of which of the
// given types: as many as fit and its queue's limits leave, on the first type
// that has room for its smallest size if it prefers one, else on those that
// have the most. What it may not borrow is not among them.
func (x *Index) elasticSize(sh *fleet.Shape, q *fleet.Query, in *quota.Queue, j *cluster.Job, types []string) (size int32, on []string) {
	for _, t := range types {
		q.Types = []string{t}
		left := x.tree.Most(in, j.User, t)
		if x.hasQuota && !j.Spec.Preemptible {
			left = min(left, x.firmRoom(in, t))
		}
		n := int32(min(left/int64(sh.Share), int64(x.fleet.Most(sh, q)))) //nolint:gosec // at most the gang's size
		if sh.PerNode > 0 {
			n -= n % sh.PerNode
		}
		switch {
		case n < sh.Least || n < size:
		case n > size:
			size, on = n, []string{t}
		default:
			on = append(on, t)
		}
		if size > 0 && len(sh.Types) > 0 {
			break
		}
	}
	return size, on
}
