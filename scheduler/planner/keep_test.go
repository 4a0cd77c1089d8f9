package planner

import (
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestNobodyKnowsWhenRoomComes: a gang that needs the whole cluster does not stop
// it for as long as a job of unknown length goes on: what is kept is open to those
// that are gone by the time the gang has waited as long again, so to longer ones
// the longer it waits.
func TestNobodyKnowsWhenRoomComes(t *testing.T) {
	t.Parallel()
	p := cluster.DefaultPolicy()
	p.Order, p.Preemption.Off = cluster.OrderFIFO, true
	w := newWorld(t, p)
	w.join(machine("n0", 4, "h100", ""))
	w.join(machine("n1", 4, "h100", ""))
	w.run("ann", spec("default", 2)) // for ever, for all that is known
	limited := func(d time.Duration) cluster.JobID {
		s := spec("default", 1)
		s.TimeLimit = d
		return w.submit("bob", s)
	}
	starts := func(want ...cluster.JobID) {
		t.Helper()
		p := w.turn()
		var got []cluster.JobID
		for _, st := range p.Starts {
			got = append(got, st.Job)
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %v jobs %v start, want %v", w.now.Sub(cluster.Time(1000*time.Hour)), got, want)
		}
	}
	gang := w.submit("cid", spec("default", 8))
	w.pass(10 * time.Minute)
	w.turn()
	if w.s.Job(gang).Kept == nil {
		t.Fatal("no nodes are kept for the gang")
	}
	long, hour := limited(10*time.Hour), limited(time.Hour)
	starts()
	w.pass(4 * time.Hour)
	starts(hour)
	if at := w.x.keptAt(gang); at != 0 {
		t.Errorf("the gang is expected to start at %v: nobody knows when", at)
	}
	w.pass(20 * time.Hour)
	starts(long)
	w.end(hour)
	w.end(long)
	w.end(w.ids(cluster.Starting, cluster.Running)[0])
	starts(gang)
}
