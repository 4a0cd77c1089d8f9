package scheduler

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestClockGoesOn: behind a state whose clock is a year ahead, time still
// passes, by this server's own seconds.
func TestClockGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour
		c := &clock{wall: time.Now}
		if got, ahead := c.now(); !got.Equal(time.Now()) || ahead != 0 {
			t.Errorf("without a state: %s, %s ahead", got, ahead)
		}
		state := cluster.Time(time.Now().Add(-time.Minute).UnixNano())
		c.follow(func() cluster.Time { return state })
		if got, ahead := c.now(); !got.Equal(time.Now()) || ahead != 0 {
			t.Errorf("with a state that is behind: %s, %s ahead", got, ahead)
		}
		state = cluster.Time(time.Now().Add(year).UnixNano())
		for range 3 {
			if got, ahead := c.now(); !got.Equal(time.Now().Add(year)) || ahead != year {
				t.Errorf("with a state that is ahead: %s, %s ahead", got, ahead)
			}
			time.Sleep(time.Hour)
			if got, ahead := c.now(); got.UnixNano() != int64(state.Add(time.Hour)) || ahead != year {
				t.Errorf("an hour later: %s, %s ahead", got, ahead)
			}
			state = state.Add(time.Hour) // a command was stamped so
		}
		state = state.Add(-1) // a stamp that is late changes nothing
		if _, ahead := c.now(); ahead != year {
			t.Errorf("%s ahead", ahead)
		}
	})
}
