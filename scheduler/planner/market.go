package planner

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// candidate is a job that may be stopped, with what that would cost.
type candidate struct {
	job    *cluster.Job
	r      *run
	at     standing
	until  cluster.Time // before then it stands there, if its version in the state is still this one; 0: that is not known
	saved  cluster.Time // when it recorded the last checkpoint of its epoch, 0: it has none
	lost   int64        // milli-GPU-milliseconds of work and restart
	shrink bool         // an elastic job: it goes on with fewer GPUs
	young  bool         // it has run for less than the policy guarantees
	gone   bool         // taken by an earlier claim of this plan

	by    right // found in a search, see rightOf
	asked int   // that search
}

// onNode is who holds GPUs of a node, in one market.
type onNode struct {
	market int
	jobs   []*candidate
}

// market is what one thorough plan knows of the jobs that may be stopped.
type market struct {
	x      *Index
	all    []candidate   // by job id
	listed bool          // who holds what is known; not before the first claim: many plans end before
	asks   int           // searches for victims so far
	asker  *entry        // the claimer that was looked at last
	stands standing      // its own
	price  time.Duration // since its last checkpoint, of a job that reports none
	// round: jobs may be stopped by the order alone, see roundEvery.
	round bool
	// moving: victims are moved, not preempted: whoever allows it and is cheap.
	moving bool
	taken  []taken

	lowest int32                 // priority of any candidate that allows preemption
	worst  standing              // of these the latest key, and the highest level
	latest [cluster.Levels]int64 // by level, less what former stops make up for, see outlasts: the latest key; once sorted: there or above
	sorted bool
	opened quota.Stamp // latest is as of then

	victims, best []*candidate // scratch of cheapest
}

// openMarket lists who may be stopped. What stops already counts as free from
// here on: it will be, and those for whom it was stopped come first. One market
// is open at a time.
//
// Most jobs stand where they stood in the last market: what was found out of
// them there holds as long as the state has the same version of them.
func (x *Index) openMarket() *market {
	x.markets++
	m := &market{x: x, lowest: cluster.MaxPriority + 1}
	ages, next := x.ages[:0], roster{list: x.candidates}
	x.state.EachHolding(func(j *cluster.Job) bool {
		c := next.find(j)
		switch {
		case c != nil:
			c = next.keep()
			c.gone, c.asked, c.lost = false, 0, 0
		case j.State == cluster.Stopping:
			x.fleet.Give(j)
			return true
		case x.running[j.ID] == nil:
			return true
		default:
			c = next.add(newCandidate(j, x.running[j.ID]))
		}
		if c.saved != 0 {
			ages = append(ages, x.now.Sub(c.saved))
		}
		c.young = x.now.Sub(j.StartedAt) < x.policy.Preemption.MinRuntime
		m.meet(c)
		return true
	})
	m.all = next.list[:next.done]
	m.price, m.opened = median(ages), x.tree.Stamp(x.now)
	x.candidates, x.ages = m.all, ages
	return m
}

func newCandidate(j *cluster.Job, r *run) *candidate {
	c := &candidate{job: j, r: r, shrink: j.Spec.Elastic() && j.Held() > j.Spec.MinGPUs}
	if j.Checkpoint != nil && j.Checkpoint.Epoch == j.Epoch {
		c.saved = j.Checkpoint.RecordedAt
	}
	return c
}

// meet finds out how a candidate stands, and what that means for those who claim.
func (m *market) meet(c *candidate) {
	x, j := m.x, c.job
	if x.now >= c.until {
		c.at, c.until = x.standingOf(j), x.standsUntil(j)
	}
	if !j.Spec.Preemptible || c.young {
		return
	}
	key := c.at.key + m.groupOffset(c)
	m.lowest = min(m.lowest, j.Spec.Priority)
	m.worst.key, m.worst.level = max(m.worst.key, key), max(m.worst.level, c.at.level)
	if j.Preemptions < x.policy.Preemption.MaxPerJob && c.at.level < cluster.Levels { // else another order: nobody asks for it
		i := max((levelParts*c.at.level-int64(j.Preemptions))/levelParts, 0)
		m.latest[i] = max(m.latest[i], key)
	}
}

// holders are the candidates that hold GPUs of a node.
func (m *market) holders(id cluster.NodeID) []*candidate {
	m.list()
	if on := m.x.marketNodes[id]; on != nil && on.market == m.x.markets {
		return on.jobs
	}
	return nil
}

// list finds out who holds GPUs where.
func (m *market) list() {
	if m.listed {
		return
	}
	m.listed = true
	x := m.x
	if x.marketNodes == nil {
		x.marketNodes = map[cluster.NodeID]*onNode{}
	}
	for i := range m.all {
		c := &m.all[i]
		c.lost = m.cost(c.job)
		for _, n := range c.job.NodeRanks {
			on := x.marketNodes[n]
			if on == nil {
				on = &onNode{}
				x.marketNodes[n] = on
			}
			if on.market != x.markets {
				on.market, on.jobs = x.markets, on.jobs[:0]
			}
			on.jobs = append(on.jobs, c)
		}
	}
}

// standingOf is a claimer's standing.
func (m *market) standingOf(e *entry) standing {
	if m.asker != e {
		m.asker, m.stands = e, m.x.standingOf(e.job)
	}
	return m.stands
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

// right is by what a claimer may stop a job, the least disruptive first.
type right uint8

const (
	rightNone     right = 0
	rightShrink   right = 1 // the victim only shrinks
	rightReclaim  right = 2 // its queue has borrowed what the claimer's queue was promised
	rightPriority right = 3 // the claimer's priority is higher
	rightOrder    right = 4 // it is expected to need much more GPU time
)

// mayStop says by what right a claimer may stop a running job, if any.
func (m *market) mayStop(e *entry, c *candidate) right {
	x, p := m.x, &m.x.policy.Preemption
	switch {
	case c.gone:
		return rightNone
	case m.moving:
		budget := x.policy.Defrag.MaxCost.Milliseconds() * int64(c.job.Held()) * int64(c.job.Spec.Share())
		if c.job.Spec.Preemptible && c.job.State == cluster.Running && !c.young && c.lost <= budget {
			return rightOrder
		}
		return rightNone
	}
	by := rightNone
	switch {
	case m.reclaims(e, c):
		by = rightReclaim
	case c.young || !c.job.Spec.Preemptible || c.job.Preemptions >= p.MaxPerJob:
	case x.hasQuota && c.r.q != e.lane.q && x.tree.Borrowed(c.r.q, c.r.gpuType) == 0:
		// It is within its own queue's quota: no other queue's concern.
	case e.job.Spec.Priority != c.job.Spec.Priority:
		if e.job.Spec.Priority > c.job.Spec.Priority {
			by = rightPriority
		}
	case m.outlasts(e, c):
		by = rightOrder
	}
	if by != rightNone && c.shrink {
		return rightShrink
	}
	return by
}

// reclaims reports whether the claimer takes back what the victim's queue has
// borrowed. It waits a moment before it does: something may end meanwhile. Firm
// jobs borrow nothing, but for those that a policy which promised more has let
// start: they may go on too.
func (m *market) reclaims(e *entry, c *candidate) bool {
	t := m.x.tree
	return m.x.hasQuota && !e.lane.borrow && c.job.Spec.Preemptible && m.x.now.Sub(e.job.PendingAt) >= waitBefore &&
		t.MayClaim(e.lane.q, c.r.q, c.r.gpuType, e.lane.need) && t.Owed(e.lane.q, c.r.q, c.r.gpuType) > 0
}

// hopeless reports whether no job at all may be stopped for a claimer.
func (m *market) hopeless(e *entry) bool {
	switch {
	case m.moving, m.x.hasQuota && !e.lane.borrow, m.lowest < e.job.Spec.Priority:
		return false
	case m.lowest > e.job.Spec.Priority, !m.round || !m.x.preemptsByLevel():
		return true
	}
	at := m.standingOf(e)
	return levelParts*(m.worst.level-at.level) < m.gap() || m.worst.key <= at.key+e.lane.offset
}

// noneBehind reports whether hopeless is so for a claimer and all that wait behind
// it, without asking each of them.
func (m *market) noneBehind(e *entry) bool {
	x := m.x
	switch {
	case m.moving || x.hasQuota || x.tree.HasLimits() || m.lowest < e.job.Spec.Priority:
		return false
	case m.lowest > e.job.Spec.Priority || !m.round:
		return true
	default: // the order goes by the keys that hopeless compares
		return x.policy.Order == cluster.OrderGangline && m.worst.key <= e.key+e.lane.offset
	}
}

// levelParts is in how many parts of a level gaps are measured. Each former stop of a victim makes up for one.
const levelParts = 16

// gap is by how many parts a victim's level must be worse than the claimer's.
func (m *market) gap() int64 { return 2 * levelParts * m.x.policy.Preemption.MinGain / level }

// outlasts reports whether a running job is expected to need so much more GPU
// time than the claimer that it should stop for it. The gap that is asked for
// grows with each time that the victim was stopped: a doubling each 32 times.
func (m *market) outlasts(e *entry, c *candidate) bool {
	if !m.round || !m.x.preemptsByLevel() || m.x.now.Sub(e.job.PendingAt) < waitBefore {
		return false
	}
	at := m.standingOf(e)
	gap := levelParts*(c.at.level-at.level) - int64(c.job.Preemptions)
	return gap >= m.gap() && c.at.key+m.groupOffset(c) > at.key+e.lane.offset
}

// groupOffset is what fair share adds to a victim's key.
func (m *market) groupOffset(c *candidate) int64 {
	return m.x.offsetBeside(c.r)
}

// waitBefore is how long a job waits before another is stopped for it by the
// order alone, or for borrowed quota: something may end meanwhile.
const waitBefore = time.Minute

// roundEvery is how often jobs are stopped by the order alone.
const roundEvery = time.Minute

// take counts the claimer's GPUs as held and its victims' as free for the
// claims that follow in this plan.
func (m *market) take(e *entry, gpuType string) {
	t := taken{q: e.lane.q, user: e.job.User, gpuType: gpuType, milli: e.lane.need}
	if !e.job.Spec.Preemptible {
		t.firm = t.milli
	}
	m.count(t)
}

// count counts what close undoes.
func (m *market) count(t taken) {
	m.x.tree.Take(t.q, t.user, t.gpuType, t.milli)
	m.x.countFirm(t.q, t.gpuType, t.firm)
	m.taken = append(m.taken, t)
}

// close undoes what take and evict have counted.
func (m *market) close() {
	for _, t := range m.taken {
		m.x.tree.Give(t.q, t.user, t.gpuType, t.milli)
		m.x.countFirm(t.q, t.gpuType, -t.firm)
	}
}

// taken is what one step has counted as held, or as given if negative.
type taken struct {
	q       *quota.Queue
	user    string
	gpuType string
	milli   int64
	firm    int64 // of it, by jobs that may not be stopped
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
