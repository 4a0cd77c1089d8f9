package planner

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// onNode is who holds GPUs of a node, as noted last.
type onNode struct {
	id      cluster.NodeID
	list    uint32 // then
	jobs    []*run
	gpus    int32 // that these hold there
	latest  int64 // of their keys
	shrinks bool  // one of them would only shrink
}

// market is what one thorough plan knows of the jobs that may be stopped.
type market struct {
	x       *Index
	listed  bool           // who holds what is known of all of them, see list
	state   cluster.Cursor // of what is known of all
	changed bool           // the state is another one than at the last market
	asker   *entry         // the claimer that was looked at last
	stands  standing       // its own
	price   time.Duration  // since its last checkpoint, of a job that reports none; negative: not known yet
	// round: jobs may be stopped by the order alone, see roundEvery.
	round bool
	// moving: victims are moved, not preempted: whoever allows it and is cheap.
	moving bool
	taken  []taken

	runs   int                   // jobs that hold GPUs
	lowest int32                 // priority of any candidate that allows preemption
	worst  standing              // of these the latest key, and the highest level
	latest [cluster.Levels]int64 // the latest key of who may be stopped by the order alone, at so many whole parts of levels or above
	ranked quota.Stamp           // latest is as of then

	nodes         []*onNode        // on which those are whom the last search may stop
	victims, best []*run           // scratch of cheapest
	failed        map[*shape]int64 // the lowest level at which a shape has found nobody
	hopes         []*entry         // see claimers
	looked        int              // jobs at which that has looked
}

// openMarket finds out how those stand who may be stopped, and what that means
// for those who claim. One market is open at a time.
//
// Most jobs stand where they stood in the last market: what was found out of
// them there holds as long as the state has the same version of them.
func (x *Index) openMarket() *market {
	m := &x.market
	*m = market{
		x: x, state: x.cursor, changed: m.state != x.cursor, lowest: cluster.MaxPriority + 1, price: -1,
		failed: m.failed, hopes: m.hopes[:0], nodes: m.nodes[:0], victims: m.victims[:0], best: m.best[:0], taken: m.taken[:0],
	}
	if m.failed == nil {
		m.failed = map[*shape]int64{}
	}
	clear(m.failed)
	x.restamp()
	for _, g := range x.running {
		of := &g.roster
		if x.now >= of.due || of.passed && m.changed {
			x.survey(of, m.changed)
		}
		m.runs += len(of.all)
		if of.some {
			x.reckon(g)
			m.lowest = min(m.lowest, of.lowest)
			m.worst.key, m.worst.level = max(m.worst.key, of.worst.key+g.offset), max(m.worst.level, of.worst.level)
		}
	}
	return m
}

// begin lets the claims begin. What stops already counts as free from here on: it
// will be, and those for whom it was stopped come first.
func (m *market) begin() {
	for _, g := range m.x.running {
		for _, c := range g.roster.all {
			c.lost = 0
			if c.stopping {
				m.x.fleet.Give(c.job)
			}
		}
	}
}

// idle reports whether none of those whom claimers has listed could stop anybody:
// then all that they do would be undone, and the market need not begin. Most end
// here.
func (m *market) idle() bool {
	return !slices.ContainsFunc(m.hopes, func(e *entry) bool { return !m.noneLater(e) })
}

// rank finds out how late those are who may be stopped by the order alone.
func (m *market) rank() {
	x, latest := m.x, &m.latest
	x.restamp()
	m.ranked, *latest = x.stamp, [cluster.Levels]int64{}
	for _, g := range x.running {
		if !g.roster.some {
			continue
		}
		x.reckon(g)
		for _, c := range g.roster.all {
			if c.parts >= 0 && !c.gone {
				step := c.parts / levelParts
				latest[step] = max(latest[step], c.key+g.offset)
			}
		}
	}
	for i := len(latest) - 2; i >= 0; i-- {
		latest[i] = max(latest[i], latest[i+1])
	}
}

// setPrice finds out what stopping a candidate would lose.
func (m *market) setPrice(c *run) {
	if m.price < 0 {
		m.price = m.priceOfAll()
	}
	c.lost = m.cost(c.job)
}

// priceOfAll is the median time since the last checkpoint.
func (m *market) priceOfAll() time.Duration {
	ages := m.x.ages[:0]
	for _, g := range m.x.running {
		for _, c := range g.roster.all {
			if saved := c.job.Checkpoint; !c.stopping && saved != nil && saved.Epoch == c.job.Epoch && saved.RecordedAt != 0 {
				ages = append(ages, m.x.now.Sub(saved.RecordedAt))
			}
		}
	}
	m.x.ages = ages
	return median(ages)
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
func (m *market) mayStop(e *entry, c *run) right {
	x, p := m.x, &m.x.policy.Preemption
	switch {
	case c.gone:
		return rightNone
	case m.moving:
		budget := x.policy.Defrag.MaxCost.Milliseconds() * int64(c.job.Held()) * int64(c.job.Spec.Share())
		if !c.firm && c.job.State == cluster.Running && !c.young && c.lost <= budget {
			return rightOrder
		}
		return rightNone
	}
	by := rightNone
	switch {
	case m.reclaims(e, c):
		by = rightReclaim
	case c.firm || c.young || c.job.Preemptions >= p.MaxPerJob:
	case x.hasQuota && c.q != e.lane.q && x.tree.Borrowed(c.q, c.gpuType) == 0:
		// It is within its own queue's quota: no other queue's concern.
	case e.lane.priority != c.priority:
		if e.lane.priority > c.priority {
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
func (m *market) reclaims(e *entry, c *run) bool {
	t := m.x.tree
	return m.x.hasQuota && !e.lane.borrow && !c.firm && m.x.now.Sub(e.job.PendingAt) >= waitBefore &&
		t.MayClaim(e.lane.q, c.q, c.gpuType, e.lane.need) && t.Owed(e.lane.q, c.q, c.gpuType) > 0
}

// hopeless reports whether no job at all may be stopped for a claimer.
func (m *market) hopeless(e *entry) bool {
	switch {
	case m.moving, m.x.hasQuota && !e.lane.borrow, m.lowest < e.lane.priority:
		return false
	case m.lowest > e.lane.priority, !m.round || !m.x.preemptsByLevel():
		return true
	}
	bar := m.barOf(e)
	return levelParts*m.worst.level < bar.parts || m.worst.key <= bar.key
}

// noneBehind reports whether hopeless is so for a claimer and all that wait behind
// it, without asking each of them.
func (m *market) noneBehind(e *entry) bool {
	x := m.x
	switch {
	case m.moving || x.hasQuota || x.tree.HasLimits() || m.lowest < e.lane.priority:
		return false
	case m.lowest > e.lane.priority || !m.round:
		return true
	default: // the order goes by the keys that hopeless compares
		return x.policy.Order == cluster.OrderGangline && m.worst.key <= e.key+e.lane.offset
	}
}

// noneLater reports whether a claimer could stop others by the order alone, and
// none of them is so much later in it. Most searches end here.
func (m *market) noneLater(e *entry) bool {
	x := m.x
	if !m.byOrder(e) {
		return false
	}
	if !m.round || x.now.Sub(e.job.PendingAt) < waitBefore {
		return true
	}
	if m.ranked != x.tree.Stamp(x.now) {
		m.rank()
	}
	bar := m.barOf(e)
	from := bar.parts / levelParts
	return from >= cluster.Levels || m.latest[from] <= bar.key
}

// levelParts is in how many parts of a level gaps are measured. Each former stop of a victim makes up for one.
const levelParts = 16

// bar is what a victim must surpass that is stopped for a claimer by the order alone.
type bar struct {
	key   int64 // it is later
	parts int64 // at least so many parts of levels
}

// barOf is a claimer's bar.
func (m *market) barOf(e *entry) bar {
	at := m.standingOf(e)
	return bar{at.key + e.lane.offset, levelParts*at.level + 2*levelParts*m.x.policy.Preemption.MinGain/level}
}

// outlasts reports whether a running job is expected to need so much more GPU
// time than the claimer that it should stop for it. The gap that is asked for
// grows with each time that the victim was stopped: a doubling each 32 times.
func (m *market) outlasts(e *entry, c *run) bool {
	if !m.round || !m.x.preemptsByLevel() || m.x.now.Sub(e.job.PendingAt) < waitBefore {
		return false
	}
	bar := m.barOf(e)
	return levelParts*int64(c.level)-int64(c.job.Preemptions) >= bar.parts && c.key+m.x.offsetBeside(c) > bar.key
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
		if t.victim != nil {
			t.victim.gone = false // until the state says so
		}
	}
}

// taken is what one step has counted as held, or as given if negative.
type taken struct {
	q       *quota.Queue
	user    string
	gpuType string
	milli   int64
	firm    int64 // of it, by jobs that may not be stopped
	victim  *run  // that gives it, or nil
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
