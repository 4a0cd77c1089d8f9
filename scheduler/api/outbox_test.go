package api

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestPollPauses: nothing is called between pause and resume, after which a whole pause passes before the next call.
func TestPollPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		p := startPoll(time.Second, func() bool {
			calls.Add(1)
			return true
		})
		defer p.stop()
		for _, phase := range []struct {
			do   func()
			wait time.Duration
			want int32
		}{
			{func() {}, 1500 * time.Millisecond, 1},
			{p.pause, 10 * time.Second, 1},
			{p.resume, 999 * time.Millisecond, 1},
			{func() {}, time.Millisecond, 2},
			{func() {}, time.Second, 3},
			{p.stop, time.Minute, 3},
		} {
			phase.do()
			time.Sleep(phase.wait)
			synctest.Wait()
			if n := calls.Load(); n != phase.want {
				t.Errorf("%d calls, want %d", n, phase.want)
			}
		}
	})
}
