package planner

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// Bounds of one thorough plan: each claim looks at all nodes of a type.
const (
	maxClaims  = 64     // blocked jobs for which victims are sought
	claimWorth = 50_000 // nodes that are looked at for all of them
)

func (x *Index) claimsAtOnce() int {
	return min(max(claimWorth/max(x.state.Nodes(), 1), 4), maxClaims)
}

// candidate is a job that may be stopped, with what that would cost.
type candidate struct {
	job    *cluster.Job
	r      *run
	at     standing
	lost   int64 // milli-GPU-milliseconds of work and restart
	shrink bool  // an elastic job: it goes on with fewer GPUs
	gone   bool  // taken by an earlier claim of this plan
}

// market is what one thorough plan knows of the jobs that may be stopped.
type market struct {
	x     *Index
	all   []*candidate // by job id
	on    map[cluster.NodeID][]*candidate
	price time.Duration // since its last checkpoint, of a job that reports none
	// moving: victims are moved, not preempted: whoever allows it and is cheap.
	moving bool
	taken  []taken
}

// preempt finds victims for the first jobs that could not start. Everything it
// pretends is undone before it returns, but for what it writes into the plan.
//
// Nothing goes round in circles: a job may be stopped by one of a higher
// priority, or of its own priority whose key is lower by the policy's gain, or
// to give back what its queue has borrowed; each of these orders jobs strictly.
// A job's key rises only with the service that it has had. MaxPerJob bounds
// what is left: keys that learning has moved.
func (x *Index) preempt(plan *Plan) {
	if x.policy.Preemption.Off {
		return
	}
	mark := x.fleet.Mark()
	defer x.fleet.Undo(mark)
	var m *market
	var done []*entry
	for range x.claimsAtOnce() {
		l := x.firstBlocked()
		if l == nil {
			break
		}
		if m == nil {
			m = x.openMarket()
		}
		e := l.jobs.top()
		m.claim(e, plan)
		x.setAside(e)
		done = append(done, e)
	}
	for _, e := range done {
		x.bringBack(e)
	}
	if m != nil {
		m.close()
	}
}

// openMarket lists who may be stopped. What stops already counts as free from
// here on: it will be, and those for whom it was stopped come first.
func (x *Index) openMarket() *market {
	m := &market{x: x, on: map[cluster.NodeID][]*candidate{}}
	var ages []time.Duration
	x.state.EachHolding(func(j *cluster.Job) bool {
		if j.State == cluster.Stopping {
			x.fleet.Give(j)
			return true
		}
		r := x.running[j.ID]
		if r == nil {
			return true
		}
		if j.Checkpoint != nil && j.Checkpoint.Epoch == j.Epoch {
			ages = append(ages, x.now.Sub(j.Checkpoint.RecordedAt))
		}
		if x.now.Sub(j.StartedAt) >= x.policy.Preemption.MinRuntime {
			m.all = append(m.all, &candidate{job: j, r: r, at: x.standingOf(j), shrink: j.Spec.Elastic() && j.Held() > j.Spec.MinGPUs})
		}
		return true
	})
	m.price = median(ages)
	for _, c := range m.all {
		c.lost = m.cost(c.job)
		for _, n := range c.job.NodeRanks {
			m.on[n] = append(m.on[n], c)
		}
	}
	return m
}

// unknownAge stands for the median where no job of the cluster reports checkpoints.
const unknownAge = 30 * time.Minute

func median(ages []time.Duration) time.Duration {
	if len(ages) == 0 {
		return unknownAge
	}
	slices.Sort(ages)
	return ages[len(ages)/2]
}

// cost is the GPU time that stopping a job throws away: the work since its last
// checkpoint, or since the start if that is later, and the restart. A job that
// reports no checkpoints is taken to be at the cluster's median.
func (m *market) cost(j *cluster.Job) int64 {
	ran := m.x.now.Sub(j.StartedAt)
	lost := min(ran, m.price)
	if j.Checkpoint != nil {
		lost = min(ran, m.x.now.Sub(j.Checkpoint.RecordedAt))
	}
	return (max(lost, 0) + m.x.policy.Preemption.RestartCost).Milliseconds() * int64(j.Held()) * int64(j.Spec.Share())
}

// claim finds the cheapest victims for one blocked job, puts them into the plan
// and takes their GPUs for it.
func (m *market) claim(e *entry, plan *Plan) {
	x := m.x
	types, blocked := x.allowed(e.lane)
	if blocked != nil {
		return
	}
	if _, ok := x.place(e, types); ok {
		return // what stops already will do
	}
	for _, t := range types {
		set := m.cheapest(e, t)
		if set == nil {
			continue
		}
		inner := x.fleet.Mark()
		for _, c := range set {
			x.fleet.Give(c.job)
		}
		st, ok := x.place(e, []string{t})
		if !ok {
			x.fleet.Undo(inner)
			continue
		}
		m.evict(e, set, st, plan)
		m.take(e, t)
		return
	}
}

// take counts the claimer's GPUs as held and its victims' as free for the
// claims that follow in this plan.
func (m *market) take(e *entry, gpuType string) {
	m.x.tree.Take(e.lane.q, e.job.User, gpuType, e.lane.need)
	m.taken = append(m.taken, taken{q: e.lane.q, user: e.job.User, gpuType: gpuType, milli: e.lane.need})
}

// close undoes what take and evict have counted.
func (m *market) close() {
	for _, t := range m.taken {
		m.x.tree.Give(t.q, t.user, t.gpuType, t.milli)
	}
}

// taken is what one step has counted as held, or as given if negative.
type taken struct {
	q       *quota.Queue
	user    string
	gpuType string
	milli   int64
}

// evict writes the victims whose GPUs the claimer gets into the plan, and what
// is to be kept for it until they are gone.
func (m *market) evict(e *entry, set []*candidate, st start, plan *Plan) {
	x, j := m.x, e.job
	nodes := nodesOf(st.workers)
	wait := time.Duration(0)
	for _, c := range set {
		if !slices.ContainsFunc(c.job.NodeRanks, func(n cluster.NodeID) bool { return slices.Contains(nodes, n) }) {
			continue
		}
		c.gone = true
		x.tree.Give(c.r.q, c.job.User, c.r.gpuType, c.r.milli)
		m.taken = append(m.taken, taken{q: c.r.q, user: c.job.User, gpuType: c.r.gpuType, milli: -c.r.milli})
		wait = max(wait, c.job.Spec.Warn+c.job.Spec.Grace)
		cause, why := cluster.StopPreempt, m.reason(e, c)
		if c.shrink && m.fitsAgain(c) {
			cause = cluster.StopResize
			why = fmt.Sprintf("shrinks so that job %d (%s) can start", j.ID, j.Spec.Wants())
		}
		plan.Evicts = append(plan.Evicts, Evict{Job: c.job.ID, Epoch: c.job.Epoch, Cause: cause, Reason: why, For: j.ID, Cost: c.lost})
	}
	plan.Keeps = append(plan.Keeps, Keep{Job: j.ID, Nodes: nodes, At: x.now.Add(wait)})
}

// fitsAgain reports whether an elastic victim can go on at once with its
// smallest size, beside what the claimer has taken.
func (m *market) fitsAgain(c *candidate) bool {
	x := m.x
	sh := x.fleet.Shape(c.job.Spec)
	q := x.query(c.job, nil)
	return x.fleet.Place(sh, sh.Least, &q) != nil
}

// reason says to a victim for whom it stops, and by what right.
func (m *market) reason(e *entry, c *candidate) string {
	j := e.job
	who := fmt.Sprintf("job %d (%s, queue %s", j.ID, j.Spec.Wants(), j.Spec.Queue)
	switch {
	case m.reclaims(e, c):
		return fmt.Sprintf("preempted: %s) takes back quota that queue %s has borrowed", who, c.job.Spec.Queue)
	case j.Spec.Priority > c.job.Spec.Priority:
		return fmt.Sprintf("preempted by %s, priority %d)", who, j.Spec.Priority)
	default:
		return fmt.Sprintf("preempted by %s), which is expected to need less GPU time than this job still does", who)
	}
}

// reclaims reports whether the claimer takes back what the victim's queue borrows.
func (m *market) reclaims(e *entry, c *candidate) bool {
	t := m.x.tree
	return m.x.hasQuota && !e.lane.borrow && t.MayClaim(e.lane.q, c.r.q, c.r.gpuType, e.lane.need) && t.Owed(e.lane.q, c.r.q, c.r.gpuType) > 0
}

// mayStop reports whether a running job may be stopped for a claimer.
func (m *market) mayStop(e *entry, c *candidate) bool {
	x, p := m.x, &m.x.policy.Preemption
	if c.gone {
		return false
	}
	if m.moving {
		budget := x.policy.Defrag.MaxCost.Milliseconds() * int64(c.job.Held()) * int64(c.job.Spec.Share())
		return c.job.Spec.Preemptible && c.job.State == cluster.Running && c.lost <= budget
	}
	if m.reclaims(e, c) {
		return true
	}
	if !c.job.Spec.Preemptible || c.job.Preemptions >= p.MaxPerJob {
		return false
	}
	if x.hasQuota && c.r.q != e.lane.q && x.tree.Borrowed(c.r.q, c.r.gpuType) < c.r.milli {
		return false // it is within its own queue's quota: no other queue's concern
	}
	a, b := e.job.Spec.Priority, c.job.Spec.Priority
	if a != b {
		return a > b
	}
	return x.preemptsByLevel() && m.outlasts(e, c)
}

// outlasts reports whether a running job is expected to need so much more GPU
// time than the claimer that it should stop for it. The gap that is asked for
// grows with each time that the victim was stopped: a doubling each 32 times.
func (m *market) outlasts(e *entry, c *candidate) bool {
	p := &m.x.policy.Preemption
	if m.x.now.Sub(e.job.PendingAt) < waitBefore {
		return false
	}
	at := m.x.standingOf(e.job)
	gap := 16*(c.at.level-at.level) - int64(c.job.Preemptions)
	return gap >= 32*p.MinGain/level && c.at.key+m.groupOffset(c) > at.key+e.lane.group.offset
}

// groupOffset is what fair share adds to a victim's key.
func (m *market) groupOffset(c *candidate) int64 {
	if !m.x.fair() {
		return 0
	}
	return m.x.groupOf(c.r.q, c.job.User).offset
}

// waitBefore is how long a job waits before another is stopped for it by the
// order alone: something may end meanwhile.
const waitBefore = time.Minute

func nodesOf(workers []cluster.Placement) []cluster.NodeID {
	var nodes []cluster.NodeID
	for i := range workers {
		if n := len(nodes); n == 0 || nodes[n-1] != workers[i].Node {
			nodes = append(nodes, workers[i].Node)
		}
	}
	return nodes
}

// cheapest returns the cheapest set of victims that makes room for a job on
// GPUs of one type, or nil. On each node the least disruptive go first: those
// that only shrink, then what is borrowed, then the lower priority, then the
// most service had; among equals the one that loses least work.
func (m *market) cheapest(e *entry, gpuType string) []*candidate {
	x := m.x
	var offers []offer
	need := e.lane.shape.Least
	most := int32(0)
	x.fleet.EachNode(gpuType, func(id cluster.NodeID, free, alive int32) bool {
		cands := m.eligible(e, id, gpuType)
		if len(cands) == 0 && free == 0 {
			return true
		}
		o := makeOffer(id, free, min(alive, need), e.lane.shape.PerNode, cands)
		if o.gpus > 0 {
			offers = append(offers, o)
			most = max(most, o.gpus)
		}
		return true
	})
	// Whole nodes for a large gang; the one cheapest node for a small one.
	slices.SortFunc(offers, func(a, b offer) int {
		return cmp.Or(cmp.Compare(b.gpus, a.gpus), cmp.Compare(a.cost, b.cost), cmp.Compare(a.node, b.node))
	})
	seen := map[cluster.JobID]bool{}
	var set []*candidate
	for _, o := range offers {
		if need <= 0 {
			break
		}
		for _, c := range o.victims {
			if !seen[c.job.ID] {
				seen[c.job.ID] = true
				set = append(set, c)
			}
		}
		need -= o.gpus
	}
	if need > 0 || len(set) == 0 {
		return nil
	}
	return set
}

// eligible lists a node's jobs that may be stopped for a claimer, the least
// disruptive first.
func (m *market) eligible(e *entry, id cluster.NodeID, gpuType string) []*candidate {
	var out []*candidate
	for _, c := range m.on[id] {
		if c.r.gpuType == gpuType && m.mayStop(e, c) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *candidate) int {
		return cmp.Or(-compareBool(a.shrink, b.shrink), -compareBool(m.reclaims(e, a), m.reclaims(e, b)),
			cmp.Compare(a.job.Spec.Priority, b.job.Spec.Priority), cmp.Compare(b.at.level/2, a.at.level/2),
			cmp.Compare(a.lost, b.lost), cmp.Compare(a.job.ID, b.job.ID))
	})
	return out
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// offer is what one node can give, and what that costs.
type offer struct {
	node    cluster.NodeID
	gpus    int32
	cost    int64
	victims []*candidate
}

// makeOffer takes victims until the node has as many GPUs as the gang could
// use there.
func makeOffer(id cluster.NodeID, free, want, perNode int32, cands []*candidate) offer {
	if perNode > 0 {
		want = perNode
	}
	o := offer{node: id, gpus: min(free, want)}
	for _, c := range cands {
		if o.gpus >= want {
			break
		}
		here := gpusOn(c.job, id)
		o.gpus = min(o.gpus+here, want)
		o.cost += c.lost
		o.victims = append(o.victims, c)
	}
	if perNode > 0 && o.gpus < perNode {
		return offer{}
	}
	return o.pruned(free, want, id)
}

// pruned drops victims that turned out not to be needed, the dearest first.
func (o offer) pruned(free, want int32, id cluster.NodeID) offer {
	sum := free
	for _, c := range o.victims {
		sum += gpusOn(c.job, id)
	}
	byCost := slices.SortedFunc(slices.Values(o.victims), func(a, b *candidate) int {
		return cmp.Or(cmp.Compare(b.lost, a.lost), cmp.Compare(a.job.ID, b.job.ID))
	})
	for _, c := range byCost {
		here := gpusOn(c.job, id)
		if sum-here < min(want, o.gpus) {
			continue
		}
		sum -= here
		o.cost -= c.lost
		o.victims = slices.DeleteFunc(slices.Clone(o.victims), func(v *candidate) bool { return v == c })
	}
	return o
}

// gpusOn is how many GPUs a job holds on a node.
func gpusOn(j *cluster.Job, id cluster.NodeID) int32 {
	n := 0
	for i := range j.Workers {
		if j.Workers[i].Node == id {
			n += len(j.Workers[i].GPUs)
		}
	}
	return int32(n) //nolint:gosec // at most MaxNodeGPUs
}
