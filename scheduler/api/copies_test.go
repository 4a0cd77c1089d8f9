package api

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/control"
)

func TestKeepersOf(t *testing.T) {
	t.Parallel()
	got := keepersOf([]*agentv1.Hello{
		{NodeId: "b", Address: "b:1"},
		{NodeId: "a", Address: "a:1", Labels: map[string]string{rackLabel: "r1"}, KeepsCopies: true},
	})
	if d := cmp.Diff([]control.Keeper{{Node: "a", Rack: "r1", Address: "a:1"}}, got); d != "" {
		t.Errorf("agents that keep copies: (-want +got)\n%s", d)
	}
}

// TestCopiesAndLocalCheckpoints: agents are told their peers, again when one leaves; what a job has on nodes' own disks is shown.
func TestCopiesAndLocalCheckpoints(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		keeper := func(id string) *agentv1.Hello {
			h := hello(id, 2)
			h.KeepsCopies = true
			return h
		}
		a := f.agent(keeper("a"))
		b := f.agent(keeper("b"))
		time.Sleep(3 * agentTick)
		synctest.Wait()
		if got, want := a.last().GetCopiesTo(), keeper("b").GetAddress(); got != want {
			f.t.Errorf("copies of a go to %q, want %q", got, want)
		}
		f.start(f.submit(nil), "a:0", "a:1")
		w := runs(1, 1, 0)
		w.LocalCheckpoint = &agentv1.Checkpoint{Step: 500, Path: "/s/job-1/step-500", Copied: true}
		a.report(w, runs(1, 1, 1))
		writes := f.written()
		if l := shownLocal(f).GetLocalCheckpoint(); l.GetStep() != 500 || !l.GetCopied() || f.State().Job(1).Checkpoint != nil {
			f.t.Errorf("local %v, recorded %v", l, f.State().Job(1).Checkpoint)
		}
		w = runs(1, 1, 0)
		w.Checkpoint = &agentv1.Checkpoint{Step: 500, Path: "/s/job-1/step-500"}
		w.LostStep, w.CheckpointPace = 400, "each 1h, auto"
		w.OlderStart = &agentv1.OlderStart{CommittedStep: 450, ResumedStep: 300}
		a.report(w, runs(1, 1, 1))
		if pace := f.s1().hub.CheckpointPace(1, 1); pace != "each 1h, auto" || f.s1().hub.CheckpointPace(1, 2) != "" {
			f.t.Errorf("the job is told to save %q", pace)
		}
		if j := shownLocal(f); j.GetLocalCheckpoint() != nil || j.GetLostStep() != 400 || j.GetOlderStart().GetCommittedStep() != 450 || j.GetOlderStart().GetResumedStep() != 300 || f.State().Job(1).Checkpoint.Step != 500 || f.written() != writes+1 {
			f.t.Errorf("shown %v, recorded %v", shownLocal(f), f.State().Job(1).Checkpoint)
		}
		b.cancel()
		time.Sleep(3 * agentTick)
		synctest.Wait()
		if got := a.last().GetCopiesTo(); got != "" {
			f.t.Errorf("copies of a go to %q after b has left", got)
		}
	})
}

// shownLocal is what job 1 shows of local checkpoints.
func shownLocal(f *reignFixture) *schedulerv1.Job {
	var p schedulerv1.Job
	f.s1().hub.addLocal(&p, 1, 1)
	return &p
}
