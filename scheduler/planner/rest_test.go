package planner

import (
	"fmt"
	"testing"
)

// TestLanesRest: a lane whose last job has started waits for the next one, and of
// very many such lanes some are forgotten.
func TestLanesRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, queues("b"))
	w.join(machine("n0", 8, "h100", ""))
	once := func(user int) *lane {
		id := w.submit(fmt.Sprint("user ", user), spec("b", 1))
		w.x.Follow(w.s)
		l := w.x.jobs.entry(id).lane
		w.turn()
		w.sound()
		w.end(id)
		return l
	}
	last := map[int]*lane{}
	for i := range 2 * maxResting {
		last[i] = once(i)
		if again := once(i); again != last[i] {
			t.Fatalf("user %d: the lane is another one than a moment before", i)
		}
	}
	for i := range maxResting {
		if once(i) == last[i] {
			t.Fatalf("user %d: the lane of long ago is still known", i)
		}
	}
}
