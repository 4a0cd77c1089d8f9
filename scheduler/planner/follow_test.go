package planner

import (
	"fmt"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Worlds in which an index that followed once planned otherwise than one made
// anew, cut down to what it took.

// queues is a policy with queues of equal weight.
func queues(paths ...string) *cluster.Policy {
	p := cluster.DefaultPolicy()
	for _, path := range paths {
		p.Queues = append(p.Queues, cluster.QueuePolicy{Path: path, Weight: 1000})
	}
	return p
}

// submit submits a job of a user and returns its id.
func (w *world) submit(user string, s *cluster.JobSpec) cluster.JobID {
	w.t.Helper()
	w.serial++
	return w.apply(&cluster.SubmitJob{RequestID: fmt.Sprint(w.serial), User: user, Spec: s}).Job
}

// run submits a job and lets it run.
func (w *world) run(user string, s *cluster.JobSpec) cluster.JobID {
	w.t.Helper()
	id := w.submit(user, s)
	w.turn()
	w.runAll()
	if w.s.Job(id).State != cluster.Running {
		w.t.Fatalf("job %d is %s", id, w.s.Job(id).State)
	}
	return id
}

// prior is a job of a priority.
func prior(priority int32, s *cluster.JobSpec) *cluster.JobSpec {
	s.Priority = priority
	return s
}

// TestFairShareCountsForAllAlike: a start moves the lanes of others, whether or
// not they are tried. The gang of b does not fit, and only an index that does
// not know it yet tries it; b's other job must not come before c's for that.
func TestFairShareCountsForAllAlike(t *testing.T) {
	t.Parallel()
	w := newWorld(t, queues("b", "c", "d"))
	w.join(machine("n0", 4, "h100", ""))
	w.run("dan", spec("d", 2))
	w.submit("bob", prior(80, spec("b", 3)))
	w.turn() // it does not fit
	first := w.submit("dan", prior(90, spec("d", 1)))
	second := w.submit("cid", spec("c", 1))
	w.pass(100 * time.Millisecond)
	w.submit("bob", spec("b", 1))
	w.pass(11 * time.Second)
	p := w.agreed()
	if len(p.Starts) != 2 || p.Starts[0].Job != first || p.Starts[1].Job != second {
		t.Errorf("got %+v, want jobs %d and %d, which was submitted before b's", p.Starts, first, second)
	}
}

// TestFairShareMovesLanesOneByOne: what fair share adds changes for all lanes of
// a user at once, and each finds its place among the others. Of bob's two, the
// one behind is looked at first, when the other is not yet where it belongs.
func TestFairShareMovesLanesOneByOne(t *testing.T) {
	t.Parallel()
	p := queues("a", "b", "c")
	p.Preemption.Off, p.Backfill.Reserve = true, 0 // nobody takes lanes out
	w := newWorld(t, p)
	w.join(machine("n0", 4, "h100", ""))
	w.run("dan", spec("c", 4))
	firm := func(queue string) *cluster.JobSpec { // a lane of its own
		s := spec(queue, 1)
		s.Preemptible = false
		return s
	}
	first := w.submit("bob", spec("a", 1))
	for _, s := range []*cluster.JobSpec{spec("b", 1), firm("b"), firm("a"), prior(40, spec("b", 1)), spec("a", 1)} {
		w.pass(50 * time.Millisecond)
		w.submit(map[string]string{"a": "bob", "b": "eve"}[s.Queue], s)
	}
	w.turn()
	w.apply(&cluster.CancelJob{Job: first})
	w.turn()
	q := w.x.tree.Queue("a")
	w.x.tree.Take(w.x.tree.Queue("b"), "eve", "h100", 4000)
	w.x.reweigh(w.x.groups[groupKey{q.ID, "bob"}])
	w.sound()
}

// TestWhoWaitsForALimitLacksNoRoom: a job that did not fit when it was tried, and
// then came to wait for its queue's limit, is in nobody's way: an elastic job
// grows into what is idle.
func TestWhoWaitsForALimitLacksNoRoom(t *testing.T) {
	t.Parallel()
	p := queues("a", "b")
	p.Queues[0].Limit = []cluster.TypeCount{{GPUs: 3}}
	p.Preemption.Off, p.Backfill.Reserve = true, 0
	w := newWorld(t, p)
	w.join(machine("n0", 4, "h100", ""))
	held := w.run("bob", spec("b", 2))
	elastic := spec("b", 3)
	elastic.MinGPUs = 1
	small := w.run("ann", spec("a", 1))
	grows := w.run("bob", elastic)
	w.end(small)
	w.submit("ann", spec("a", 3))
	w.turn() // three are not free
	w.run("ann", spec("a", 1))
	w.end(held)
	w.pass(growAfter)
	w.apply(&cluster.RecordCheckpoint{Job: grows, Epoch: 1, Step: 1, Path: "/c"})
	if p := w.agreed(); len(p.Evicts) != 1 || p.Evicts[0].Job != grows || p.Evicts[0].Cause != cluster.StopResize {
		t.Errorf("got %+v, want job %d to grow", p, grows)
	}
}

// typed is a job that asks for GPUs of a type.
func typed(gpuType string, s *cluster.JobSpec) *cluster.JobSpec {
	s.GPUTypes = []string{gpuType}
	return s
}

// TestKeptStartInTurn: what is kept for a job of low priority is given to it
// after those of a higher one have had their turn, if only to have nodes kept for
// them, known not to fit or not; and before those that could use it meanwhile.
func TestKeptStartInTurn(t *testing.T) {
	t.Parallel()
	p := cluster.DefaultPolicy()
	p.Order, p.Preemption.Off = cluster.OrderFIFO, true
	w := newWorld(t, p)
	w.join(machine("n0", 4, "h100", ""))
	w.join(machine("n1", 1, "a100", ""))
	w.run("ann", typed("h100", spec("default", 2)))
	busy := w.run("ann", typed("a100", spec("default", 1)))
	kept := w.submit("ann", prior(50, typed("a100", spec("default", 1))))
	w.submit("bob", prior(90, typed("h100", spec("default", 3))))
	short := prior(50, typed("a100", spec("default", 1)))
	short.TimeLimit = time.Minute
	w.submit("cid", short)
	w.turn()
	w.apply(&cluster.KeepNodes{Job: kept, Nodes: []cluster.NodeID{"n1"}, At: w.now.Add(100 * time.Hour)})
	w.turn()
	w.end(busy)
	w.pass(time.Hour)
	if p := w.agreed(); len(p.Starts) != 1 || p.Starts[0].Job != kept || len(p.Keeps) > 0 {
		t.Errorf("got %+v, want job %d to start, and nothing kept yet beside what is kept for it", p, kept)
	}
}

// TestNextBlockedStandsWhereItBelongs: of those that wait for room the first by
// now has its turn, though what this plan has started put another one behind it:
// whoever asks after it, for nodes or for whom they are kept, must see the same.
func TestNextBlockedStandsWhereItBelongs(t *testing.T) {
	t.Parallel()
	p := queues("b", "c", "d")
	p.Queues[0].Quota, p.Queues[2].Quota = []cluster.TypeCount{{GPUs: 2}}, []cluster.TypeCount{{GPUs: 2}}
	p.Preemption.Off = true
	w := newWorld(t, p)
	w.join(machine("n0", 4, "h100", ""))
	w.run("cid", spec("c", 4))
	w.submit("bob", prior(50, spec("b", 2)))
	second := w.submit("dan", prior(10, spec("d", 2)))
	w.turn()
	w.x.tree.Take(w.x.tree.Queue("b"), "bob", "h100", 2000) // a start of this plan
	w.x.left, w.x.looks = 1, 1
	if l := w.x.nextBlocked(0); l == nil || l.jobs.top().job.ID != second {
		t.Errorf("got %+v, want the lane of job %d: the other one would borrow now", l, second)
	}
}
