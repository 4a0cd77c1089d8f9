package planner

import (
	"slices"

	"github.com/gangline/gangline/scheduler/planner/quota"
)

// A firm job is one that may not be preempted. Nobody ever stops it for another
// job, so it may hold only what was promised to its queue, or to one above it:
// what it held of others' promises, they could not take back. Firm jobs are
// counted against quota by themselves: the others of their queue can be stopped,
// so what they hold is what the queue borrows, if it holds more than its quota.

// firmKey names what the firm jobs of a queue and of those below it hold.
type firmKey struct {
	queue   int
	gpuType string // "": of all types together
}

// countFirm adds what a firm job holds.
func (x *Index) countFirm(q *quota.Queue, gpuType string, milli int64) {
	if !x.hasQuota {
		return
	}
	for ; q != nil; q = q.Parent() {
		x.firm[firmKey{q.ID, gpuType}] += milli
		x.firm[firmKey{q.ID, ""}] += milli
		if up := q.Parent(); up != nil {
			delete(x.owing, up.ID)
		}
	}
}

// firmRoom returns how many milli-GPUs of a type firm jobs of a queue may take
// more: what some quota on its way up leaves when all that is promised to other
// queues under it is taken too.
func (x *Index) firmRoom(q *quota.Queue, gpuType string) int64 {
	most, promised := int64(0), int64(0)
	from := (*quota.Queue)(nil)
	for ; q != nil; from, q = q, q.Parent() {
		promised += x.owed(q, gpuType)
		if from != nil {
			promised -= max(x.unpromised(from, gpuType), 0)
		}
		most = max(most, x.unpromised(q, gpuType)-promised)
	}
	return most
}

// owed is what is promised to the parts of a queue and not held by firm jobs.
func (x *Index) owed(q *quota.Queue, gpuType string) int64 {
	parts := x.parts[q.ID]
	if len(parts) == 0 {
		return 0
	}
	known := x.owing[q.ID]
	if sum, ok := known[gpuType]; ok {
		return sum
	}
	if known == nil {
		known = map[string]int64{}
		x.owing[q.ID] = known
	}
	sum := int64(0)
	for _, c := range parts {
		sum += max(x.unpromised(c, gpuType), 0)
	}
	known[gpuType] = sum
	return sum
}

// unpromised is what the firm jobs of a queue leave of its quota.
func (x *Index) unpromised(q *quota.Queue, gpuType string) int64 {
	milli, ofAny := x.tree.Quota(q, gpuType)
	if ofAny {
		gpuType = ""
	}
	return milli - x.firm[firmKey{q.ID, gpuType}]
}

// learnParts notes which queues are parts of which: only the policy's have quota.
func (x *Index) learnParts() {
	for _, q := range x.tree.Queues() {
		if up := q.Parent(); up != nil {
			x.parts[up.ID] = append(x.parts[up.ID], q)
		}
	}
}

// mayBorrow reports whether a lane's next job may start whatever its queue
// holds already of what it was promised of a type.
func (x *Index) mayBorrow(l *lane, gpuType string) bool {
	return !x.hasQuota || l.preemptible || l.need <= x.firmRoom(l.q, gpuType)
}

// beyond reports whether what a lane's next job needs is more than what is
// covered, of every type that it may have; covered is in the order of the
// fleet's types. Firm jobs come after others' promises as all do, if their queue
// as a whole would borrow.
func (x *Index) beyond(l *lane, covered []int64) bool {
	for i, t := range x.fleet.Types() {
		if l.need <= covered[i] && slices.Contains(x.typesOf(l.shape), t) {
			return false
		}
	}
	return true
}

// borrows is beyond, asked for one lane.
func (x *Index) borrows(l *lane) bool {
	if !x.hasQuota {
		return false
	}
	return x.beyond(l, x.coveredOf(l.q))
}

// coveredOf is how much more of each of the fleet's types a queue may take that
// a quota covers. The result is scratch.
func (x *Index) coveredOf(q *quota.Queue) []int64 {
	x.covered = x.covered[:0]
	for _, t := range x.fleet.Types() {
		x.covered = append(x.covered, x.tree.Covered(q, t))
	}
	return x.covered
}
