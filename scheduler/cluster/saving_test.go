package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestBadCheckpointPolicies(t *testing.T) {
	t.Parallel()
	best := KeepBest{Metric: "loss", Lowest: true, Count: 1}
	for _, c := range []struct {
		policy CheckpointPolicy
		keep   int32
		want   string // "": it is good
	}{
		{CheckpointPolicy{Interval: time.Minute, KeepEvery: 100, KeepBest: []KeepBest{best}, PushNth: 1}, 2, ""},
		{CheckpointPolicy{Auto: true}, 0, ""},
		{CheckpointPolicy{Steps: 10}, 0, ""},
		{CheckpointPolicy{Interval: time.Millisecond}, 0, "checkpoint.interval: 1ms is not in 1s..720h0m0s"},
		{CheckpointPolicy{Steps: -1}, 0, "checkpoint.interval: -1 steps"},
		{CheckpointPolicy{Auto: true, Steps: 1}, 0, "checkpoint.interval: give one of"},
		{CheckpointPolicy{Interval: time.Minute, Steps: 1}, 0, "checkpoint.interval: give one of"},
		{CheckpointPolicy{KeepEvery: 5}, 0, "checkpoint.keep: is missing"},
		{CheckpointPolicy{KeepEvery: -5}, 1, "checkpoint.every: -5 is negative"},
		{CheckpointPolicy{KeepBest: []KeepBest{best, best}}, 1, "checkpoint.best: loss is named twice"},
		{CheckpointPolicy{KeepBest: []KeepBest{{Metric: "loss"}}}, 1, "checkpoint.best: 0 checkpoints by loss"},
		{CheckpointPolicy{KeepBest: []KeepBest{{Metric: "a\n", Count: 1}}}, 1, `checkpoint.best: "a\n" is not the name`},
		{CheckpointPolicy{KeepBest: make([]KeepBest, 9)}, 1, "checkpoint.best: 9 metrics, at most 8"},
		{CheckpointPolicy{PushNth: -1}, 0, "checkpoint.push: each -1."},
	} {
		s := spec(1)
		s.KeepCkpts, s.Checkpoints = c.keep, &c.policy
		switch err := s.Validate(); {
		case c.want == "" && err != nil:
			t.Errorf("%+v is refused: %v", c.policy, err)
		case c.want != "" && !strings.Contains(fmt.Sprint(err), c.want):
			t.Errorf("%+v: got %v, want %q", c.policy, err, c.want)
		}
	}
}

// TestExperience: time in use counts for each node, a node's loss and a sick GPU count as failures; a program's own end and a preemption do not.
func TestExperience(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(5)
	began := f.s.Job(id).StartedAt
	node := func(i int) Experience { return f.s.Node([]NodeID{"id-0", "id-1"}[i]).Experience }
	check := func(what string, failures0, failures1 int64) {
		t.Helper()
		if a, b := node(0), node(1); a.Failures != failures0 || b.Failures != failures1 || f.s.Experience() != (Experience{a.Used + b.Used, failures0 + failures1}) ||
			f.s.ExperienceOf(f.s.Job(id)) != f.s.Experience() {
			t.Fatalf("%s: nodes %+v and %+v, together %+v", what, a, b, f.s.Experience())
		}
	}
	again := func() {
		t.Helper()
		f.i += 600 // beyond any back-off
		f.place(id)
		f.report(id, 0, WorkerRunning, 0)
		f.report(id, 1, WorkerRunning, 0)
	}
	f.report(id, 0, WorkerExited, 3)
	f.report(id, 1, WorkerExited, 3)
	check("a program that failed", 0, 0)
	if ran := int64(f.s.Now().Sub(began) / time.Second); node(0).Used != ran*WholeGPU || ran == 0 {
		t.Errorf("the node was used for %d milli-GPU-seconds, of %d s", node(0).Used, ran)
	}
	again()
	f.ok(&EvictJob{Job: id, Epoch: f.s.Job(id).Epoch, Cause: StopPreempt})
	f.report(id, 0, WorkerExited, 0)
	f.report(id, 1, WorkerExited, 0)
	check("preempted", 0, 0)
	again()
	sick := gpuNode(1, 4)
	sick.GPUs[0].Healthy = false
	f.ok(&RegisterNode{Node: sick, Running: []WorkerRef{{Job: id, Epoch: f.s.Job(id).Epoch, Rank: 1, GPUs: []string{"GPU-1-0"}}}})
	f.report(id, 1, WorkerExited, 3)
	f.report(id, 0, WorkerExited, 3)
	check("a sick GPU", 0, 1)
	f.ok(&RegisterNode{Node: gpuNode(1, 4)})
	again()
	f.ok(&LoseNode{Node: "id-0", Incarnation: f.s.Node("id-0").Incarnation})
	f.report(id, 1, WorkerExited, 3)
	check("a lost node", 1, 1)

	var bytes []byte
	_ = f.s.Encode(func(p []byte) error { bytes = append(bytes, p...); return nil })
	if back, err := Decode(bytes, Version); err != nil || back.Experience() != f.s.Experience() || back.Hash() != f.s.Hash() {
		t.Errorf("after a snapshot: %v", err)
	}
}

// TestCheckpointNews: what is not known anew stays, a copy in the object store counts by itself.
func TestCheckpointNews(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 5, Path: "/5", Cost: 3, Took: 4})
	at := f.s.Job(id).Checkpoint.RecordedAt
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 5, Path: "/5", Remote: "s3://b/5", RemoteStep: 5})
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 4, Path: "/4", Cost: 9})
	if k, want := *f.s.Job(id).Checkpoint, (Checkpoint{5, 1, "/5", 0, at, 3, 4, "s3://b/5", 5, 2 * 1000 * 1000}); k != want {
		t.Errorf("got %+v, want %+v", k, want)
	}
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 6, Path: "/6"})
	if k, want := *f.s.Job(id).Checkpoint, (Checkpoint{6, 1, "/6", 0, f.s.Now(), 3, 4, "s3://b/5", 5, f.s.Job(id).AttainedAt(f.s.Now())}); k != want {
		t.Errorf("got %+v, want %+v", k, want)
	}
}

// TestVersion4 reads what the release before wrote: without what is new since.
func TestVersion4(t *testing.T) {
	t.Parallel()
	sp := spec(2)
	sp.KeepCkpts, sp.Checkpoints = 3, &CheckpointPolicy{Auto: true}
	n := gpuNode(0, 1)
	n.Experience = Experience{5, 6}
	k := Checkpoint{Step: 1, Path: "/p", Bytes: 2, RecordedAt: 3, Cost: 4, Remote: "r"}
	c := coder{version: 4}
	sp.code(&c)
	n.code(&c)
	k.code(&c)
	r := coder{buf: c.buf, reading: true, version: 4}
	var sp4 JobSpec
	var n4 Node
	var k4 Checkpoint
	sp4.code(&r)
	n4.code(&r)
	k4.code(&r)
	if r.err != nil || len(r.buf) > 0 || sp4.Checkpoints != nil || sp4.KeepCkpts != 3 || n4.Experience != (Experience{}) || k4 != (Checkpoint{Step: 1, Path: "/p", Bytes: 2, RecordedAt: 3}) {
		t.Errorf("%v, %d left: %+v, %+v, %+v", r.err, len(r.buf), sp4, n4, k4)
	}
}

// TestALossAfterASaveWaitsForNothing: losses in a row are waited out, longer and longer, but not by a job that gets on between them.
func TestALossAfterASaveWaitsForNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	step := int64(0)
	lose := func(saves bool, want time.Duration) {
		t.Helper()
		if saves {
			step++
			f.ok(&RecordCheckpoint{Job: id, Epoch: f.s.Job(id).Epoch, Step: step, Path: "/x"})
		}
		f.report(id, 0, WorkerLost, 0)
		f.report(id, 1, WorkerLost, 0)
		j := f.want(id, Pending, "waits to start again")
		if got := max(j.NotBefore.Sub(j.PendingAt), 0); got != want {
			t.Errorf("after loss %d it waits %v, want %v", j.Requeues, got, want)
		}
		f.i += 600
		f.place(id)
	}
	lose(false, 0)
	lose(false, time.Second)
	lose(false, 2*time.Second)
	lose(true, 0)
	lose(false, time.Second)
	lose(false, 2*time.Second)
	lose(true, 0)
}

// TestACheckpointToldLate: one that was committed a while ago covers less, and no time before its epoch's start is believed.
func TestACheckpointToldLate(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	began := f.s.Job(id).StartedAt
	for range 5 {
		f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 1, Path: "/1"}) // a second each
	}
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 2, Path: "/2", Age: 2 * time.Second})
	k := f.s.Job(id).Checkpoint
	if at := f.s.Now().Add(-2 * time.Second); at <= began || k.RecordedAt != at || k.Covers != f.s.Job(id).AttainedAt(at) || k.Covers == 0 {
		t.Errorf("committed 2 s ago: %+v", k)
	}
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 2, Path: "/2", Age: time.Second}) // again: as it was
	if again := f.s.Job(id).Checkpoint; *again != *k {
		t.Errorf("told again: %+v, want %+v", again, k)
	}
	f.ok(&RecordCheckpoint{Job: id, Epoch: 1, Step: 3, Path: "/3", Age: time.Hour})
	if k := f.s.Job(id).Checkpoint; k.RecordedAt != began || k.Covers != 0 {
		t.Errorf("committed before the epoch: %+v", k)
	}
}
