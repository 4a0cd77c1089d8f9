package control

import (
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestNewsOfSilence: whether a member of a gang that may shrink answers its agent is told once each way; while it does not, who waits at the
// rendezvous of this formation asks for the next.
func TestNewsOfSilence(t *testing.T) {
	t.Parallel()
	st := gangOf(t, func(s *cluster.JobSpec) { s.MinGPUs, s.OnFailure, s.Retries = 2, cluster.FailureShrinks, 0 }, "a/0", "a/1", "a/2")
	all := []WorkerStatus{runs(1, 1, 0), runs(1, 1, 1), runs(1, 1, 2)}
	st.tell(t, all...)
	for _, step := range []struct {
		what    string
		change  func()
		asks    int32
		silence cluster.Silence
		members int
	}{
		{"rank 1 waits", func() { all[1].Arrived, all[1].Asks = true, 1 }, 0, 0, 3},
		{"rank 2 is silent, so that rank 1 waits in vain", func() { all[2].Silent = true }, 0, cluster.FellSilent, 3},
		{"the next report", func() {}, 2, 0, 3},
		{"rank 2 answers again", func() { all[2].Silent = false }, 0, cluster.SpokeAgain, 3},
		{"the next report", func() {}, 0, 0, 3},
		{"rank 2 is silent again", func() { all[2].Silent = true }, 0, cluster.FellSilent, 3},
		{"rank 0 may be busy", func() {}, 2, 0, 3},
		{"rank 0 waits too", func() { all[0].Arrived, all[0].Asks = true, 1 }, 2, 0, 2},
	} {
		step.change()
		cmds := News(st.s, "a", all, nil)
		st.must(t, cmds...)
		var got cluster.WorkerReport
		if len(cmds) > 0 {
			got = reported(t, cmds)[0]
		}
		if j := st.s.Job(1); got.Asks != step.asks || got.Silence != step.silence || len(j.Members()) != step.members {
			t.Errorf("%s: told %+v, members %v, want asks %d, silence %d, %d members", step.what, got, j.Members(), step.asks, step.silence, step.members)
		}
	}
	if j := st.s.Job(1); j.Formation() != 2 {
		t.Errorf("formation %d, want 2: %s", j.Formation(), j.Reason)
	}
}
