package workerclient

import (
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/nodeagent/interval"
	"github.com/gangline/gangline/nodeagent/reconcile"
)

func (a *agent) saver(interval string) *Client {
	a.t.Helper()
	c, err := New(Environment{WorldSize: 1, Socket: a.path(), CheckpointInterval: interval})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSaveDueBySteps: the agent's answers, and the same while it is away; after its restart none is told twice and none is left out.
func TestSaveDueBySteps(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	if due, known := a.client(1).SaveDue(t.Context(), 100); due || known {
		t.Error("a job without a policy is told something")
	}
	a.SetPolicy(a.key, interval.Policy{Steps: 10})
	c := a.saver("10 steps")
	told := func(from, to int64) (steps []int64) {
		for step := from; step <= to; step++ {
			due, known := c.SaveDue(t.Context(), step)
			if !known {
				t.Fatalf("step %d: nothing is known", step)
			}
			if due {
				steps = append(steps, step)
			}
		}
		return steps
	}
	want := func(what string, got []int64, want ...int64) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: due at steps %v, want %v", what, got, want)
		}
	}
	want("with the agent", told(1, 25), 10, 20)
	a.Shutdown()
	want("while it is away", told(26, 45), 30, 40)
	c.save.quiet = time.Time{} // the client's rest after a question in vain is over
	a.start()
	a.SetPolicy(a.key, interval.Policy{Steps: 10})
	if err := c.ReportCheckpoint(t.Context(), Checkpoint{Step: 40, Path: "/40"}); err != nil { // it waits for the connection
		t.Fatal(err)
	}
	want("when it is back", told(46, 60), 50, 60)
}

// TestSaveDueByTime: with an agent that is away, by the last answer.
func TestSaveDueByTime(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	a.SetPolicy(a.key, interval.Policy{Time: time.Hour})
	c := a.saver("1h0m0s")
	for range 3 {
		if due, known := c.SaveDue(t.Context(), 1); due || !known {
			t.Errorf("due %v, known %v right after the start", due, known)
		}
	}
	if wait := time.Until(c.save.nextAt); wait < 50*time.Minute || wait > time.Hour {
		t.Errorf("the agent is asked again in %v", wait)
	}
	a.Shutdown()
	c.save.nextAt = time.Now().Add(-time.Second)
	if due, _ := c.SaveDue(t.Context(), 2); !due {
		t.Error("not due after the time that the agent had said")
	}
	if due, _ := c.SaveDue(t.Context(), 3); due || time.Until(c.save.nextAt) < 50*time.Minute {
		t.Error("due again at once")
	}
}

// TestReportedCostMovesTheInterval goes the whole way: a program reports what a save cost, and auto follows.
func TestReportedCostMovesTheInterval(t *testing.T) {
	t.Parallel()
	a := newAgent(t)
	policy := interval.Policy{Auto: true, Between: 10 * time.Hour}
	a.SetPolicy(a.key, policy)
	c := a.saver("auto")
	interval := func() time.Duration {
		got, _, err := c.askSaveDue(t.Context(), 1, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return got.interval
	}
	if got := interval(); got != 10*time.Minute {
		t.Errorf("before the first save: %v", got)
	}
	if err := c.ReportCheckpoint(t.Context(), Checkpoint{Step: 1, Path: "/1", Cost: 100 * time.Millisecond, Took: 2 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if got := interval(); got < time.Minute || got > 2*time.Minute { // sqrt(2 * 0.1 s * 10 h) = 85 s
		t.Errorf("after a save that cost 0.1 s: %v", got)
	}
	if note := a.Notes(reconcile.Key{Job: 1, Epoch: 1}).GetCheckpoint(); note.GetCostMs() != 100 || note.GetTookMs() != 2000 {
		t.Errorf("the leader is told %v", note)
	}
}
