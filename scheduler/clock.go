package scheduler

import (
	"sync"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// clock gives the time by which this server stamps and decides: control.Clock,
// read by this server's clock. It is safe for concurrent use.
type clock struct {
	wall func() time.Time // this server's, with monotonic reading

	mu    sync.Mutex
	state func() cluster.Time // the state's clock; nil: not known yet
	began time.Time           // first reading: steady time counts from here
	last  control.Clock
}

// follow tells where to read the state's clock.
func (c *clock) follow(state func() cluster.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = state
}

// now returns the time, and how far it is ahead of this server's own clock.
func (c *clock) now() (t time.Time, ahead time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t = c.wall()
	if c.began.IsZero() {
		c.began = t
	}
	var state cluster.Time
	if c.state != nil {
		state = c.state()
	}
	own := cluster.Time(t.UnixNano())
	latest, next := c.last.Read(own, t.Sub(c.began), state)
	c.last, ahead = next, latest.Sub(own)
	return t.Add(ahead), ahead
}

// stamp is now for the log.
func (c *clock) stamp() time.Time {
	t, _ := c.now()
	return t
}
