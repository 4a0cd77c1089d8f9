package control

import (
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Clock is how a server's time goes on: by its own clock, or, where the state's
// is ahead (an earlier leader's clock was wrong, or this one's was set back), by
// the state's, which then goes on from there. If it stood still until the
// server's own clock has caught up, no back-off and no time limit would end
// meanwhile. The zero Clock has not been read yet. It is a value: Read returns
// what it has become.
type Clock struct {
	base cluster.Time  // the state's clock when it was last found ahead, 0: never
	at   time.Duration // and when that was, in steady time
}

// Read returns the time to stamp and to decide by, never before own or state.
// own is the server's own clock, state the state's (0: not known yet), steady
// the time since any fixed moment of the server's life by a clock that nobody
// sets.
func (c Clock) Read(own cluster.Time, steady time.Duration, state cluster.Time) (now cluster.Time, next Clock) {
	now = own
	if c.base != 0 {
		now = max(now, c.base.Add(steady-c.at))
	}
	if state > now {
		return state, Clock{base: state, at: steady}
	}
	return now, c
}

// Shift returns the leases of a state's nodes by a clock that is ahead of the
// one that l was measured by. Step's now and leases must be of one clock.
func (l Leases) Shift(s *cluster.State, ahead time.Duration) Leases {
	if ahead == 0 {
		return l
	}
	out := make(Leases, len(l))
	s.EachNode(func(n *cluster.Node) bool {
		if until, known := l[n.ID]; known {
			out[n.ID] = until.Add(ahead)
		}
		return true
	})
	return out
}
