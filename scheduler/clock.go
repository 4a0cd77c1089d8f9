package scheduler

import (
	"sync"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// clock gives the time by which this server stamps and decides: its own, or,
// where the state's is ahead (an earlier leader's clock was wrong, or this
// one's was set back), the state's, which then goes on from there. If it stood
// still until this server's clock has caught up, no back-off and no time limit
// would end meanwhile. It is safe for concurrent use.
type clock struct {
	wall func() time.Time // this server's, with monotonic reading

	mu    sync.Mutex
	state func() cluster.Time // the state's clock; nil: not known yet
	base  cluster.Time        // the state's clock when it was last found ahead, 0: never
	at    time.Time           // and when that was
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
	latest := cluster.Time(t.UnixNano())
	own := latest
	if c.base != 0 {
		latest = max(latest, c.base.Add(t.Sub(c.at)))
	}
	if c.state != nil {
		if s := c.state(); s > latest {
			c.base, c.at, latest = s, t, s
		}
	}
	ahead = latest.Sub(own)
	return t.Add(ahead), ahead
}

// stamp is now for the log.
func (c *clock) stamp() time.Time {
	t, _ := c.now()
	return t
}
