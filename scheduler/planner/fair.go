package planner

import "github.com/gangline/gangline/scheduler/planner/quota"

// When fair share moves lanes. What it adds to their keys depends on what all
// others use, so each start and end would move all of them. It is computed
// anew, for all lanes at once, at the first plan of each factorPeriod, and
// within a plan whenever what was started since is a part of the cluster that
// matters; for the lanes of one user in one queue also whenever their own use
// changes. An index that asked at other moments, such as when a lane is tried,
// would order those that are tried otherwise than those that are known not to
// fit, and so plan otherwise than one that has to find that out.

const (
	// factorPeriod is how often fair shares are computed anew for the time that
	// has passed, nanoseconds.
	factorPeriod = 10e9
	// factorPart: they are also once one GPU in so many has been started on.
	factorPart = 32
)

// group is the lanes of one user in one queue: fair share moves them together.
// Running jobs of the user know it, too, whether or not any wait, and so do
// lanes that rest.
type group struct {
	q       *quota.Queue
	user    string
	offset  int64 // added to every key, in milliseconds; without lanes: what it would be, as of
	lanes   []*lane
	as      uint32 // this one of the index's stamps
	runs    int32  // that know it, planned ones too
	resting int32  // lanes that do, see rest.go
	roster  roster
}

type groupKey struct {
	queue int
	user  string
}

// groupOf is a user's group in a queue, made if there is none.
func (x *Index) groupOf(q *quota.Queue, user string) *group {
	key := groupKey{q.ID, user}
	g := x.groups[key]
	if g == nil {
		g = &group{q: q, user: user}
		x.groups[key] = g
	}
	return g
}

// join puts a lane into its group.
func (x *Index) join(l *lane) {
	g := l.group
	if len(g.lanes) == 0 {
		g.offset = x.offsetOf(l.q, l.user)
	}
	g.lanes, l.offset = append(g.lanes, l), g.offset
}

// dropGroup forgets a group of which nobody knows any more.
func (x *Index) dropGroup(g *group) {
	if len(g.lanes) == 0 && g.runs == 0 && g.resting == 0 {
		delete(x.groups, groupKey{g.q.ID, g.user})
	}
}

// waiting is a user's group in a queue if any of their jobs wait there, else nil.
func (x *Index) waiting(q *quota.Queue, user string) *group {
	if len(x.lanesOf(q)) == 0 {
		return nil // as often, where there is room
	}
	if g := x.groups[groupKey{q.ID, user}]; g != nil && len(g.lanes) > 0 {
		return g
	}
	return nil
}

// offsetAt is what fair share adds to the keys of a user's jobs in a queue,
// whether or not any wait there.
func (x *Index) offsetAt(q *quota.Queue, user string) int64 {
	if g := x.waiting(q, user); g != nil {
		return g.offset
	}
	return x.offsetOf(q, user)
}

// offsetBeside is offsetAt for the user and the queue of a running job.
func (x *Index) offsetBeside(r *run) int64 {
	x.restamp()
	x.reckon(r.group)
	return r.offset
}

// restamp notes as of when the offsets of running jobs are asked for from now on.
// Each market asks for those of all, so it asks the tree only once.
func (x *Index) restamp() {
	if is := x.tree.Stamp(x.now); x.stamp != is {
		x.stamp, x.stamps = is, x.stamps+1
	}
}

// reckon finds out the offset of a group of running jobs as of the last stamp.
func (x *Index) reckon(g *group) {
	if len(g.lanes) == 0 && g.as != x.stamps {
		g.offset, g.as = x.offsetOf(g.q, g.user), x.stamps
	}
}

// offsetOf is by how many milliseconds fair share puts back a group's jobs: as
// if they were submitted a setback later for each doubling of the fair part.
// So it cannot starve anyone: Factor has bounds.
func (x *Index) offsetOf(q *quota.Queue, user string) int64 {
	if !x.fair() {
		return 0
	}
	return x.tree.Steps(q, user, x.now) * x.policy.Setback.Milliseconds() * quota.Step / 1000
}

// fair reports whether the order knows fair share.
func (x *Index) fair() bool { return x.tree.Fair() }

// reweigh moves a group to where its use puts it. Its lanes move one by one:
// a heap puts right one item that stands wrong, not several at once.
func (x *Index) reweigh(g *group) {
	o := x.offsetOf(g.q, g.user)
	if o == g.offset {
		return
	}
	g.offset, x.news, x.unsorted = o, true, true
	for _, l := range g.lanes {
		l.offset = o
		if l.pos >= 0 || l.parked != nil {
			x.moveLane(l)
		}
	}
}

// reweighAll moves all groups, in the order of their queues.
func (x *Index) reweighAll() {
	x.startedMilli = 0
	for _, q := range x.tree.Queues() {
		for _, l := range x.lanesOf(q) {
			if l.group.lanes[0] == l { // each group once
				x.reweigh(l.group)
			}
		}
	}
}

// refreshOffsets moves lanes by the use that time alone has added and decayed.
func (x *Index) refreshOffsets() {
	at := x.now / factorPeriod
	if at == x.factorsAt || !x.fair() {
		return
	}
	x.factorsAt = at
	x.reweighAll()
}

// startedBy makes a planned start count in fair share: at once for the user who
// has it, for all others once enough has been started to matter.
func (x *Index) startedBy(r *run) {
	if !x.fair() {
		return
	}
	if x.startedMilli += r.milli; x.startedMilli*factorPart >= x.tree.Capacity() {
		x.reweighAll()
		return
	}
	if len(r.lanes) > 0 {
		x.reweigh(r.group)
	}
}
