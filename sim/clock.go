package sim

import (
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// genesis is the virtual time at which every run begins: 2026-01-01 00:00 UTC. Not zero, because the zero
// cluster.Time means "never".
const genesis = cluster.Time(1_767_225_600_000_000_000)

// clock is virtual time and what is still to happen in it.
type clock struct {
	now    cluster.Time
	events heap
	seq    uint64
	fired  uint64
}

func newClock() clock { return clock{now: genesis} }

// at plans f for a time; a time that is past means now. Events of one time fire in the order in which they were planned.
func (c *clock) at(t cluster.Time, f func()) {
	c.seq++
	c.events.push(event{at: max(t, c.now), seq: c.seq, fire: f})
}

// after plans f for d from now.
func (c *clock) after(d time.Duration, f func()) { c.at(c.now.Add(d), f) }

// next fires the next event; false: there is none.
func (c *clock) next() bool {
	if len(c.events) == 0 {
		return false
	}
	e := c.events.pop()
	c.now = e.at
	c.fired++
	e.fire()
	return true
}

// elapsed is the virtual time since the beginning.
func (c *clock) elapsed() time.Duration { return c.now.Sub(genesis) }
