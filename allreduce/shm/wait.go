package shm

import "sync/atomic"

// Phase returns how many phases this member has reached.
func (t *Team) Phase() uint32 { return t.phase }

// Reach says that this member has done all that others wait for, and wakes those who sleep. What it wrote before is seen by who awaits
// the phase.
func (t *Team) Reach() {
	t.phase++
	atomic.StoreUint32(t.word(t.me, reachedAt), t.phase)
	if atomic.LoadUint32(t.word(t.me, sleepersAt)) != 0 {
		wake(t.word(t.me, reachedAt))
	}
}

// Await waits until every member has reached the phase that this one has, and reports it; false, as soon as stop says so. stop is
// asked now and then, at least each napTime, from this goroutine.
func (t *Team) Await(stop func() bool) bool {
	for m := range t.n {
		if m != t.me && !t.await(m, stop) {
			return false
		}
	}
	return true
}

// behind says whether a member has not reached the phase yet. Counts wrap, and no two members are more than two phases apart.
func (t *Team) behind(member int) (reached uint32, behind bool) {
	reached = atomic.LoadUint32(t.word(member, reachedAt))
	return reached, int32(reached-t.phase) < 0 //nolint:gosec // the difference of counts that wrap
}

const (
	spins  = 100_000 // some 100 us, where each member has a core: to be woken costs about as much, and a block takes less
	glance = 2_000   // some 2 us, where members share cores: a short vector takes less, and to give the core away and get it back as much
	yields = 30      // each lets another process have the core, if one wants it
)

// await waits for one member: awake for a moment, then giving the core away, then asleep.
func (t *Team) await(member int, stop func() bool) bool {
	tries := glance
	if t.spin {
		tries = spins
	}
	if t.watch(member, tries) {
		return true
	}
	awaits := t.word(t.me, awaitsAt)
	atomic.StoreUint32(awaits, 1)
	defer atomic.StoreUint32(awaits, 0)
	for range yields {
		yield()
		if t.watch(member, glance) {
			return true
		}
	}
	sleepers := t.word(member, sleepersAt)
	for !stop() {
		atomic.AddUint32(sleepers, 1)
		reached, behind := t.behind(member)
		if behind {
			nap(t.word(member, reachedAt), reached)
		}
		atomic.AddUint32(sleepers, ^uint32(0))
		if _, behind := t.behind(member); !behind {
			return true
		}
	}
	return false
}

// watch looks for a member that is about to come, and says whether it has. It gives up at once on one that itself waits without a core, and may
// need this one.
func (t *Team) watch(member, tries int) bool {
	awaits := t.word(member, awaitsAt)
	for range tries {
		if _, behind := t.behind(member); !behind {
			return true
		}
		if atomic.LoadUint32(awaits) != 0 {
			return false
		}
	}
	return false
}
