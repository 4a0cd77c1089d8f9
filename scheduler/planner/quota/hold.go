package quota

import "math"

// counts are milli-GPUs held.
type counts struct {
	total int64
	of    []int64 // by type id
}

// at returns what is held of a type.
func (c *counts) at(id int) int64 {
	if id >= len(c.of) {
		return 0
	}
	return c.of[id]
}

// at returns the limit of a type, or -1.
func (b *bounds) at(id int) int64 {
	if id >= len(b.of) {
		return -1
	}
	return b.of[id]
}

func (c *counts) add(id int, milli int64) {
	c.of = grown(c.of, id)
	c.of[id] += milli
	c.total += milli
}

// Take notes that a user's job holds so many milli-GPUs of a type through a
// queue. The planner also takes what it means to give, and undoes that by Give.
// Nothing is refused: Check says what may be taken.
func (t *Tree) Take(q *Queue, user, gpuType string, milli int64) { t.hold(q, user, gpuType, milli) }

// Give undoes a Take of as much.
func (t *Tree) Give(q *Queue, user, gpuType string, milli int64) { t.hold(q, user, gpuType, -milli) }

func (t *Tree) hold(q *Queue, user, gpuType string, milli int64) {
	if milli == 0 {
		return
	}
	id := t.typeID(gpuType)
	q.own.add(id, milli)
	for x := q; x != nil; x = x.parent {
		x.all.add(id, milli)
		if x.below == nil {
			continue
		}
		if x.below[user] += milli; x.below[user] == 0 {
			delete(x.below, user)
		}
	}
	t.weigh(q, user, milli, milli*t.types[id].weight)
}

// Cause says what stands against taking more.
type Cause uint8

// Causes of a refusal. The zero Cause is that of none.
const (
	TypeLimit  Cause = 1 // the queue's limit of the type
	TotalLimit Cause = 2 // the queue's limit of all types together
	UserLimit  Cause = 3 // the queue's limit of one user, all types together
	// OwnQuota is never Check's: the planner gives it when a job that may not
	// be stopped would hold borrowed GPUs.
	OwnQuota Cause = 4
)

// Verdict says whether a user may take more through a queue.
type Verdict struct {
	OK bool // no limit is in the way
	// Guaranteed: the queue, or one above it, names a quota that covers all that
	// it would hold then. By is the lowest that does. What is not guaranteed is
	// borrowed, and may be reclaimed.
	Guaranteed bool
	By         *Queue
	// Blocker is the queue whose limit leaves the least room, if not OK; of
	// equal ones the lowest.
	Blocker *Queue
	Cause   Cause
	Need    int64 // milli-GPUs asked for
	Have    int64 // milli-GPUs that the tightest limit leaves, Unlimited without one
	Limit   int64 // the blocker's limit, milli-GPUs
}

// Check says whether a user may take so many milli-GPUs of a type more through
// a queue, and whether its quota covers them. It knows nothing of free GPUs.
func (t *Tree) Check(q *Queue, user, gpuType string, milli int64) Verdict {
	id := t.typeID(gpuType)
	v := t.tightest(q, user, id)
	v.Need = milli
	if v.OK = milli <= v.Have || milli <= 0; v.OK {
		v.Blocker, v.Cause, v.Limit = nil, 0, 0
	}
	v.By = covering(q, id, milli)
	v.Guaranteed = v.By != nil
	return v
}

// HasLimits reports whether any queue of the policy has a limit. Without one
// Check never refuses.
func (t *Tree) HasLimits() bool { return t.limited }

// Unlimited is what Most returns where no limit holds.
const Unlimited = math.MaxInt64

// Most returns how many milli-GPUs of a type a user may still take through a
// queue by the limits, at least 0.
func (t *Tree) Most(q *Queue, user, gpuType string) int64 {
	return t.tightest(q, user, t.typeID(gpuType)).Have
}

// tightest finds the limit that leaves the least room on the way to the root.
func (t *Tree) tightest(q *Queue, user string, id int) Verdict {
	v := Verdict{Have: Unlimited}
	bound := func(x *Queue, cause Cause, limit, used int64) {
		if left := max(limit-used, 0); left < v.Have {
			v.Blocker, v.Cause, v.Have, v.Limit = x, cause, left, limit
		}
	}
	for x := q; x.parent != nil; x = x.parent {
		if limit := x.limit.at(id); limit >= 0 {
			bound(x, TypeLimit, limit, x.all.at(id))
		}
		if x.limit.total >= 0 {
			bound(x, TotalLimit, x.limit.total, x.all.total)
		}
		if x.user > 0 {
			bound(x, UserLimit, x.user, x.below[user])
		}
	}
	return v
}

// Used returns how many milli-GPUs of a type (empty: of all types) are held
// through a queue and those below it.
func (t *Tree) Used(q *Queue, gpuType string) int64 {
	if gpuType == "" {
		return q.all.total
	}
	return q.all.at(t.typeID(gpuType))
}

// Limit returns a queue's own limit of a type in milli-GPUs (empty: of all
// types together), and whether it has one.
func (t *Tree) Limit(q *Queue, gpuType string) (int64, bool) {
	limit := q.limit.total
	if gpuType != "" {
		limit = q.limit.at(t.typeID(gpuType))
	}
	return max(limit, 0), limit >= 0
}
