package quota

import "github.com/gangline/gangline/scheduler/cluster"

// How lending works. A queue's quota is a promise: what it holds up to it is
// guaranteed, what it holds beyond is borrowed. Anyone may borrow what is idle,
// up to the limits. When a queue needs its quota and nothing is idle, it takes
// from a queue that has borrowed.
//
// Claimer and victim meet at the lowest queue above both. There the claimer's
// branch must stay within its quota with what it claims, and the victim's
// branch, as every queue from there down to the victim, must hold more than its
// own. So a team settles its own affairs first: one that has lent quota within
// the team takes it back there, and only a team that as a whole is below its
// quota takes from others. (Kueue's hierarchical cohorts and HiveD's cells
// draw the same line.)
//
// Such a victim always exists if the claimer holds less than its quota and
// nothing of the type is idle, as long as quotas do not exceed the cluster: on
// the way up from the claimer, at the first level that has no quota left, or at
// the top, the others together hold more than theirs, so one of them does, and
// so on down that branch.

// quotaOf is what the queue is promised of a type, and what it holds against
// that promise.
func (q *Queue) quotaOf(id int) (quota, held int64) {
	switch {
	case q.quota.ofAny:
		return q.quota.total, q.all.total
	case id < len(q.quota.of):
		return q.quota.of[id], q.all.at(id)
	default:
		return 0, q.all.at(id)
	}
}

// covering returns the lowest queue from q up that names a quota which covers
// so much more of a type, or nil. What a queue has only because its children
// name it is theirs.
func covering(q *Queue, id int, milli int64) *Queue {
	for x := q; x.parent != nil; x = x.parent {
		if !x.names {
			continue
		}
		if quota, held := x.quotaOf(id); quota > 0 && held+milli <= quota {
			return x
		}
	}
	return nil
}

// HasQuota reports whether any queue of the policy has a quota. Without one,
// nothing is guaranteed and nothing is borrowed.
func (t *Tree) HasQuota() bool { return t.promises }

// EachAffected calls f for every queue whose jobs Check may now call
// guaranteed where it did not, or the other way round, after what q holds has
// changed: those below a queue on q's way up whose quota has another rest than
// when EachAffected looked there last. Where the rest was and is nothing, or
// more than any gang needs, nobody is concerned. Call it after every change of
// what q holds that is not undone.
func (t *Tree) EachAffected(q *Queue, f func(*Queue)) {
	var top *Queue
	for x := q; x.parent != nil; x = x.parent {
		if x.names && x.restChanged() {
			top = x
		}
	}
	if top != nil {
		top.each(f)
	}
}

// restChanged notes what is left of the quota, and reports whether that is
// news to any gang.
func (q *Queue) restChanged() bool {
	const most = cluster.MaxGPUs * cluster.WholeGPU
	changed := false
	for i := range q.rest {
		quota, held := q.quota.total, q.all.total
		if !q.quota.ofAny {
			quota, held = q.quota.of[i], q.all.at(i)
		}
		rest := min(max(quota-held, 0), most)
		changed = changed || rest != q.rest[i]
		q.rest[i] = rest
	}
	return changed
}

// each calls f for a queue and all below.
func (q *Queue) each(f func(*Queue)) {
	f(q)
	for _, child := range q.children {
		child.each(f)
	}
}

// Quota returns what a queue is promised of a type in milli-GPUs. A queue that
// names no quota has that of its children together. If its quota is of any
// type, that is returned, and ofAny is true.
func (t *Tree) Quota(q *Queue, gpuType string) (milli int64, ofAny bool) {
	if q.quota.ofAny {
		return q.quota.total, true
	}
	if gpuType != "" {
		milli, _ = q.quotaOf(t.typeID(gpuType))
		return milli, false
	}
	for _, m := range q.quota.of {
		milli += m
	}
	return milli, false
}

// Borrowed returns how many milli-GPUs of a type a queue, with those below it,
// holds beyond its quota.
func (t *Tree) Borrowed(q *Queue, gpuType string) int64 { return q.borrowed(t.typeID(gpuType)) }

func (q *Queue) borrowed(id int) int64 {
	quota, held := q.quotaOf(id)
	return min(max(held-quota, 0), q.all.at(id))
}

// Owed returns how many milli-GPUs of a type the claimer's branch may take back
// from the victim at most: what every queue from the victim up to where the
// branches meet has borrowed. It is 0 for a queue's claim on itself. What a job
// holds in the very queue where the branches meet is owed to those below: that
// queue's quota is theirs first.
func (t *Tree) Owed(claimer, victim *Queue, gpuType string) int64 {
	id := t.typeID(gpuType)
	if claimer == victim {
		return 0
	}
	end := meet(claimer, victim)
	if end == victim {
		return victim.own.at(id)
	}
	owed := int64(Unlimited)
	for x := victim; x != end && owed > 0; x = x.parent {
		owed = min(owed, x.borrowed(id))
	}
	return owed
}

// MayClaim reports whether so many milli-GPUs more keep the claimer's branch
// within its quota where it meets the victim's: only then may it reclaim.
func (t *Tree) MayClaim(claimer, victim *Queue, gpuType string, milli int64) bool {
	if claimer == victim {
		return false
	}
	end := meet(claimer, victim)
	if end == claimer {
		return false // what is used in the queue itself has no quota beside that of the queues below
	}
	x := claimer
	for x.parent != end {
		x = x.parent
	}
	quota, held := x.quotaOf(t.typeID(gpuType))
	return quota > 0 && held+milli <= quota
}

// CanReclaim reports whether the claimer may take so many milli-GPUs of a type
// from the victim: it stays within its quota where the branches meet, and the
// victim, as every queue between, keeps at least its own.
//
// A gang is taken back whole or not at all, and may hold more than is Owed. Who
// insists on CanReclaim then leaves the claimer without its quota: take from a
// victim as long as MayClaim holds and anything is Owed, the smallest gangs first.
func (t *Tree) CanReclaim(claimer, victim *Queue, gpuType string, milli int64) bool {
	return t.MayClaim(claimer, victim, gpuType, milli) && t.Owed(claimer, victim, gpuType) >= milli
}

// meet returns the lowest queue that is above both or one of them.
func meet(a, b *Queue) *Queue {
	for a.depth > b.depth {
		a = a.parent
	}
	for b.depth > a.depth {
		b = b.parent
	}
	for a != b {
		a, b = a.parent, b.parent
	}
	return a
}
