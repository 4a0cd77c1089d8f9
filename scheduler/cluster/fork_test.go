package cluster

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestForkGoesItsOwnWay: what is applied to a fork changes nothing in the state
// it was forked from, and a fork with all who wait goes on as the state would, but
// for what was submitted before: it remembers no request ids.
func TestForkGoesItsOwnWay(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 40).Draw(t, "before") {
			w.s.Apply(w.s.Index()+1, w.s.Now().Add(time.Second), w.draw())
		}
		view := w.s.Snapshot()
		before := view.Hash()
		fork := view.Fork(nil)
		w.s.forgetRequests()
		if fork.Hash() != w.s.Hash() {
			t.Fatalf("a fork is another state")
		}
		for range rapid.IntRange(1, 40).Draw(t, "after") {
			c := w.draw()
			at := w.s.Now().Add(time.Second)
			w.s.Apply(w.s.Index()+1, at, c)
			fork.Apply(fork.Index()+1, at, c)
			if w.s.Hash() != fork.Hash() {
				t.Fatalf("%T: the fork goes another way than the state", c)
			}
		}
		if err := fork.Check(); err != nil {
			t.Fatal(err)
		}
		if view.Hash() != before {
			t.Fatalf("the snapshot has changed")
		}
	})
}

// twenty is a state in which twenty jobs wait.
func twenty(t *testing.T) *State {
	t.Helper()
	s := &State{}
	s.Apply(1, 1, &Init{ClusterID: "c", Version: Version})
	for i := range 20 {
		r := s.Apply(2, Time(time.Hour), &SubmitJob{RequestID: fmt.Sprint(i), Spec: &JobSpec{
			Name: "j", Queue: "default", GPUs: 1, Launch: LaunchPerGPU, Command: []string{"x"},
		}})
		if r.Code != OK {
			t.Fatal(r.Message)
		}
	}
	return s
}

// TestForkWithSomeWaiting: only those asked for wait in it.
func TestForkWithSomeWaiting(t *testing.T) {
	t.Parallel()
	s := twenty(t)
	s.Apply(3, Time(time.Hour), &CancelJob{Job: 7})
	f := s.Snapshot().Fork([]JobID{3, 7, 99, 5})
	var got []JobID
	f.EachPending(func(j *Job) bool {
		got = append(got, j.ID)
		return true
	})
	if fmt.Sprint(got) != "[3 5]" || f.Count(Pending) != 2 || s.Count(Pending) != 19 {
		t.Errorf("%v wait in the fork, of %d", got, f.Count(Pending))
	}
	if f := s.Snapshot().Fork([]JobID{}); f.Count(Pending) != 0 {
		t.Errorf("%d wait where nobody is to", f.Count(Pending))
	}
	if _, known := f.ChangesSince(s.Cursor()); known {
		t.Errorf("the fork's journal is that of the state")
	}
}

// TestManyFork: goroutines that read a snapshot may fork it at the same time.
func TestManyFork(t *testing.T) {
	t.Parallel()
	view := twenty(t).Snapshot()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			f := view.Fork(nil)
			for id := range JobID(20) {
				f.Apply(9, Time(2*time.Hour), &CancelJob{Job: id + 1, By: fmt.Sprint(i)})
			}
			if f.Count(Cancelled) != 20 || view.Count(Pending) != 20 {
				t.Errorf("%d are cancelled in the fork, %d wait in the snapshot", f.Count(Cancelled), view.Count(Pending))
			}
		})
	}
	all.Wait()
}

// TestSurvival: quantiles rise, lie beyond what a job has had, and follow what
// jobs like it have needed.
func TestSurvival(t *testing.T) {
	t.Parallel()
	s := twenty(t)
	spec := s.Job(1).Spec
	if _, learned := s.Survival(spec, ""); learned {
		t.Fatalf("a cluster in which no job has ended says how long they take")
	}
	for id := range JobID(20) { // all have needed between 60 and 70 GPU-seconds
		j := *s.Job(id + 1)
		j.Epoch, j.Attained, j.State = 1, 60*gpuSecond+int64(id)*gpuSecond/2, Running
		s.attain(s.kinOf(&j), &j, j.Attained)
		s.foresee(&j)
		s.conclude(&j)
	}
	v, learned := s.Survival(spec, "")
	if !learned {
		t.Fatalf("nothing is learned from 20 jobs")
	}
	for _, had := range []int64{0, 50 * gpuSecond, 1000 * gpuSecond, binEdges[historyBins] * gpuSecond, 2 * binEdges[historyBins] * gpuSecond} {
		last := had
		for q := 0.01; q < 1; q += 0.01 {
			total := v.Total(had, q)
			if total < last {
				t.Fatalf("of jobs that have had %d, %g need %d and fewer need %d", had, q, total, last)
			}
			last = total
		}
	}
	if low, high := v.Total(0, 0.3)/gpuSecond, v.Total(0, 0.6)/gpuSecond; low < 20 || low > 91 || high < 45 || high > 200 {
		t.Errorf("jobs like those that needed 60 to 70 GPU-seconds need %d to %d", low, high)
	}
	if past := v.Total(60*gpuSecond, 0.5); past < 60*gpuSecond {
		t.Errorf("who has had 60 ends at %d", past/gpuSecond)
	}
}

// TestHoldersAreWrittenOnlyWhereNobodySees: a node that was made since the last
// snapshot is written into; one that a snapshot has is copied first.
func TestHoldersAreWrittenOnlyWhereNobodySees(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.ok(&SubmitJob{RequestID: "1", User: "ann", Spec: spec(1)}).Job
	second := f.ok(&SubmitJob{RequestID: "2", User: "ann", Spec: spec(1)}).Job
	f.ok(f.on(first, "0-0"))
	id := f.s.Job(first).Workers[0].Node
	mine := f.s.Node(id)
	f.report(first, 0, WorkerExited, 0)
	if f.s.Node(id) != mine || mine.Holds() {
		t.Fatalf("a node that only the state has was copied, or holds what was let go")
	}
	view := f.s.Snapshot()
	hash := view.Hash()
	for range 2 { // the second time the copy is written into
		f.ok(f.on(second, "0-0"))
		if now := f.s.Node(id); now == mine || mine.Holds() || !now.Holds() || view.Node(id) != mine {
			t.Fatalf("the snapshot's node was written into")
		}
		f.ok(&EvictJob{Job: second, Epoch: f.s.Job(second).Epoch, Cause: StopPreempt})
		f.report(second, 0, WorkerExited, 0)
	}
	fork := view.Fork(nil)
	for _, g := range []*State{fork, f.s} {
		r := g.Apply(g.Index()+1, g.Now(), &StartJob{Job: second, Epoch: g.Job(second).Epoch + 1, Workers: []Placement{
			{Node: id, GPUs: []string{mine.GPUs[0].UUID}},
		}})
		if r.Code != OK {
			t.Fatal(r.Message)
		}
	}
	if view.Hash() != hash || mine.Holds() {
		t.Fatalf("the snapshot has changed")
	}
}
