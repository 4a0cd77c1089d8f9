package planner

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
)

// keeping is what the state says is kept for a pending job.
type keeping struct {
	e        cluster.JobID
	priority int32
	kept     *cluster.Kept
}

// keep takes what is kept for a job from the state.
func (x *Index) keep(j *cluster.Job) {
	x.unkeep(j.ID)
	if j.Kept == nil {
		return
	}
	x.news, x.nodesNews = true, true
	x.kept[j.ID] = &keeping{e: j.ID, priority: j.Spec.Priority, kept: j.Kept}
	x.keptList = nil
	for _, id := range j.Kept.Nodes {
		x.jobHolds[id] = append(x.jobHolds[id], fleet.Hold{Job: j.ID, Priority: j.Spec.Priority, At: j.Kept.At})
		x.setHolds(id)
	}
}

func (x *Index) unkeep(id cluster.JobID) {
	k := x.kept[id]
	if k == nil {
		return
	}
	delete(x.kept, id)
	x.keptList, x.news = nil, true
	if e := x.jobs.entry(id); e != nil && e.lane != nil {
		x.ripen(e)
	}
	for _, n := range k.kept.Nodes {
		x.jobHolds[n] = slices.DeleteFunc(x.jobHolds[n], func(h fleet.Hold) bool { return h.Job == id })
		if len(x.jobHolds[n]) == 0 {
			delete(x.jobHolds, n)
		}
		x.setHolds(n)
		if node := x.state.Node(n); node != nil && len(x.jobHolds[n]) == 0 {
			x.reopen(node)
		}
	}
}

// setHolds tells the fleet for whom a node is kept.
func (x *Index) setHolds(id cluster.NodeID) {
	holds := slices.Concat(x.jobHolds[id], x.windowHolds[id])
	slices.SortFunc(holds, func(a, b fleet.Hold) int { return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Queue, b.Queue)) })
	x.fleet.SetHolds(id, holds)
}

// keeps reports whether any node is kept for a job, or reserved.
func (x *Index) keeps() bool { return len(x.jobHolds)+len(x.windowHolds) > 0 }

// rekeepAfter is how long a reservation stands before it is looked at again:
// each look writes to the log.
const rekeepAfter = 5 * time.Minute

// staleAfter is until when a reservation stands whatever else happens.
func staleAfter(k *cluster.Kept) cluster.Time { return max(k.At, k.Made.Add(rekeepAfter)) }

// triesPerClaim bounds how many blocked jobs are looked at for each reservation
// that may still be made: some of the first may be too young, or hopeless.
const triesPerClaim = 4

// review gives up the reservations that are no use any more, and says how many
// new ones this plan may make.
//
// Nodes are kept free for the first blocked jobs, in order, so that a gang
// cannot starve behind small jobs: as few nodes as would hold it, those that
// are expected to come free first. Jobs that end before then may still use them.
// What is kept only grows emptier, since nothing behind the job gets any of it
// for longer than until At.
func (x *Index) review(plan *Plan) {
	x.left = min(int(x.policy.Backfill.Reserve)-len(x.kept), x.claimsAtOnce())
	x.dropStale(plan)
	if x.policy.Backfill.Off {
		x.left = 0
	}
	if x.left > 0 && x.blockedMatter() {
		x.looks = triesPerClaim * x.left
	}
}

// nextBlocked is the first lane that waits for room, if it has a turn after so
// many others have had theirs: if nodes may be kept for it.
func (x *Index) nextBlocked(had int) *lane {
	if x.left <= 0 || had >= x.looks {
		return nil
	}
	return x.firstWaiting()
}

// looksIdle reports whether looks at those that wait for room would find
// nothing, as long as nothing comes free: no limit holds any of them up, none that
// has its turn is overdue, and none that might fit on what is kept for others may
// use that. So they may be left out until then.
func (x *Index) looksIdle() bool {
	if x.left <= 0 || x.looks == 0 || !x.unlimited() || len(x.arrays)+x.heldLanes+len(x.fills) > 0 || x.overdueInTurn() {
		return false
	}
	left := maxIdle
	for _, sh := range x.closed {
		if left = x.noneFills(sh, left); left < 0 {
			return false
		}
	}
	return true
}

// noneFills looks whether none of a shape's jobs that might fit on what is kept
// for others may use that, and returns how many of so many looks are left then;
// below 0: some may, or there are more.
func (x *Index) noneFills(sh *shape, looks int) int {
	if sh.lanes.len() == 0 || !x.mayFit(sh) {
		return looks
	}
	for _, l := range sh.lanes.items {
		if looks -= l.jobs.len(); looks < 0 || slices.ContainsFunc(l.jobs.items, x.mayFill) {
			return -1
		}
	}
	return looks
}

// maxIdle bounds the jobs that looksIdle asks whether they may use what is kept.
const maxIdle = 256

// mayFit reports whether a gang of a shape might fit, see fleet.Fleet.May.
func (x *Index) mayFit(sh *shape) bool { return x.fleet.May(sh.Shape, sh.Least) }

// reserveNext keeps nodes free for a blocked lane's first job, if it has waited
// long enough and only lacks room, and sets it aside so that the next one is
// seen. Its shape may have been closed before its queue's limit was reached.
func (x *Index) reserveNext(l *lane, plan *Plan) *entry {
	e := l.jobs.top()
	if _, blocked := x.allowed(l); blocked == nil && !x.arrayFull(e.job) && x.kept[e.job.ID] == nil && x.overdue(e) {
		if k, ok := x.reservation(e); ok && x.mayKeep(len(k.Nodes)) {
			x.left--
			plan.Keeps = append(plan.Keeps, k)
			x.holdFor(k)
		}
	}
	x.setAside(e)
	return e
}

// mayKeep reports whether so many more nodes may be kept: not more than a part
// of all in sum, so that an overload does not leave most of them idle; but those
// of one job always, whatever it needs.
func (x *Index) mayKeep(nodes int) bool {
	return len(x.jobHolds) == 0 || (len(x.jobHolds)+nodes)*keptPart <= x.state.Nodes()
}

// keptPart: at most one node in so many is kept.
const keptPart = 4

// claims reports whether the plan already keeps something for a job.
func (x *Index) claims(plan *Plan, id cluster.JobID) bool {
	return slices.ContainsFunc(plan.Keeps, func(k Keep) bool { return k.Job == id })
}

// holdFor makes a reservation count at once; the state confirms it later.
func (x *Index) holdFor(k Keep) {
	if e := x.jobs.entry(k.Job); e != nil {
		x.promised = append(x.promised, k.Job)
		j := *e.job
		j.Kept = &cluster.Kept{Nodes: k.Nodes, At: k.At, Made: x.now}
		x.keep(&j)
	}
}

// dropStale gives up reservations that hold the job back from better places:
// of nodes that are gone, or whose time has passed without the job starting.
func (x *Index) dropStale(plan *Plan) {
	look := x.nodesNews
	x.nodesNews = false
	for _, id := range x.keptInOrder() {
		k := x.kept[id].kept
		lost := look && slices.ContainsFunc(k.Nodes, func(n cluster.NodeID) bool {
			node := x.state.Node(n)
			return node == nil || node.State != cluster.NodeReady || node.Drain != nil
		})
		e := x.jobs.entry(id)
		if e == nil || e.lane == nil || x.claims(plan, id) {
			x.nodesNews = x.nodesNews || lost // another time
			continue
		}
		idle := !x.allowedOnceStopped(e.lane) || x.arrayFull(e.job) // it may not start whatever comes free
		if lost || idle || x.now > staleAfter(k) {
			x.unkeep(id)
			next, ok := Keep{}, false
			if !idle {
				next, ok = x.reservation(e)
			}
			if !ok {
				next = Keep{Job: id}
			}
			plan.Keeps = append(plan.Keeps, next)
			x.holdFor(next)
		}
	}
}

// reservation chooses the nodes that come free first for a job, and says when.
func (x *Index) reservation(e *entry) (Keep, bool) {
	sh := e.lane.shape
	best := Keep{}
	for _, t := range x.typesOf(sh) {
		nodes, at := x.soonest(e, t)
		if nodes != nil && (best.Nodes == nil || at < best.At) {
			best = Keep{Job: e.job.ID, Nodes: nodes, At: at}
		}
	}
	if best.At >= x.now.Add(farFuture) {
		best.At = x.now // nobody knows when: it may be at any moment, so nobody else starts there
		if len(best.Nodes)*keptPart > x.state.Nodes() {
			// That would stop most of the cluster for as long as one job goes on. Those who will be gone once it has
			// waited as long again may start.
			best.At = best.At.Add(x.now.Sub(e.job.PendingAt))
		}
	}
	return best, best.Nodes != nil
}

// coming is a node and when it will have room.
type coming struct {
	id   cluster.NodeID
	room int32
	free int32
	at   cluster.Time
}

func (c *coming) compare(o *coming) int {
	switch {
	case c.at != o.at:
		return cmp.Compare(c.at, o.at)
	case c.free != o.free:
		return cmp.Compare(o.free, c.free)
	case c.room != o.room:
		return cmp.Compare(o.room, c.room)
	default:
		return cmp.Compare(c.id, o.id)
	}
}

// soonest returns the fewest nodes of a type that can hold the gang and are
// expected to come free first, or nil if the live nodes never could.
func (x *Index) soonest(e *entry, gpuType string) ([]cluster.NodeID, cluster.Time) {
	sh := e.lane.shape
	if !sh.Required {
		all := x.coming[:0]
		x.eachComing(e, gpuType, func(_ *cluster.Node, c coming) { all = append(all, c) })
		x.coming = all
		nodes, at := earliest(all, sh.Least)
		if nodes == nil {
			at = cluster.Time(math.MaxInt64)
		}
		return nodes, at
	}
	domains := map[string][]coming{}
	var names []string
	x.eachComing(e, gpuType, func(n *cluster.Node, c coming) {
		d := x.policy.Domain(n, sh.Level)
		if d == "" {
			return
		}
		if domains[d] == nil {
			names = append(names, d)
		}
		domains[d] = append(domains[d], c)
	})
	slices.Sort(names)
	var nodes []cluster.NodeID
	at := cluster.Time(math.MaxInt64)
	for _, d := range names {
		if ns, when := earliest(domains[d], sh.Least); ns != nil && when < at {
			nodes, at = ns, when
		}
	}
	return nodes, at
}

// eachComing calls fn for the nodes of a type on which a job could be, with when
// they are expected to have room for it.
func (x *Index) eachComing(e *entry, gpuType string, fn func(*cluster.Node, coming)) {
	spec, least := e.job.Spec, e.lane.shape.Least
	x.fleet.EachNode(gpuType, func(n *cluster.Node, free, alive int32) bool {
		if n.State != cluster.NodeReady || n.Drain != nil || n.Admits(spec) != "" || x.keptFromAny(n.ID, e.job) {
			return true
		}
		room := cluster.Room(n, spec, alive)
		if room == 0 {
			return true
		}
		fn(n, coming{id: n.ID, room: room, free: free, at: x.clearAt(n, min(room, least))})
		return true
	})
}

// earliest picks nodes by how soon they have room, the roomiest of equals first.
func earliest(all []coming, need int32) ([]cluster.NodeID, cluster.Time) {
	one := -1
	for i := range all {
		if all[i].room >= need && (one < 0 || all[i].compare(&all[one]) < 0) {
			one = i
		}
	}
	if one >= 0 {
		return []cluster.NodeID{all[one].id}, all[one].at
	}
	slices.SortFunc(all, func(a, b coming) int { return a.compare(&b) })
	var nodes []cluster.NodeID
	at := cluster.Time(0)
	for _, c := range all {
		nodes = append(nodes, c.id)
		at = max(at, c.at)
		if need -= c.room; need <= 0 {
			return nodes, at
		}
	}
	return nil, 0
}

// farFuture stands for an end that nobody can foretell.
const farFuture = 30 * 24 * time.Hour

// clearAt is when a node is expected to have room for so many GPUs.
func (x *Index) clearAt(n *cluster.Node, want int32) cluster.Time {
	free := int32(0)
	ends := x.ends[:0]
	job, jobEnd := cluster.JobID(0), cluster.Time(0) // often all GPUs are one job's
	for i := range n.GPUs {
		g := &n.GPUs[i]
		switch {
		case !g.Healthy:
		case g.Job != 0:
			if g.Job != job {
				job, jobEnd = g.Job, x.endsAt(g.Job)
			}
			ends = append(ends, jobEnd)
		case len(g.Shares) > 0:
			end := x.now
			for k := range g.Shares {
				end = max(end, x.endsAt(g.Shares[k].Job))
			}
			ends = append(ends, end)
		case n.Usable(i):
			free++
		}
	}
	x.ends = ends
	if free >= want {
		return x.now
	}
	slices.Sort(ends)
	if k := int(want-free) - 1; k < len(ends) {
		return ends[k]
	}
	return x.now.Add(farFuture)
}

// endsAt is when a running job is expected to be gone.
func (x *Index) endsAt(id cluster.JobID) cluster.Time {
	r := x.jobs.run(id)
	if r == nil || r.job.State != cluster.Starting && r.job.State != cluster.Running {
		return x.now
	}
	end := x.endOf(r.job, r.job.StartedAt)
	if end == 0 {
		return x.now.Add(farFuture)
	}
	if end <= x.now { // it has outlived what was expected: as long again as it ran
		return x.now.Add(x.now.Sub(r.job.StartedAt))
	}
	return end
}
