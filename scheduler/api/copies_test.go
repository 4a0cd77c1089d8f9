package api

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

func TestPeersOf(t *testing.T) {
	t.Parallel()
	node := func(id, rack string, keeps bool) *agentv1.Hello {
		return &agentv1.Hello{NodeId: id, Address: id + ":1", Labels: map[string]string{rackLabel: rack}, KeepsCopies: keeps}
	}
	for _, c := range []struct {
		name  string
		nodes []*agentv1.Hello
		want  map[cluster.NodeID]string
	}{
		{"alone", []*agentv1.Hello{node("a", "", true), node("b", "", false)}, map[cluster.NodeID]string{}},
		{
			"a ring",
			[]*agentv1.Hello{node("c", "", true), node("a", "", true), node("x", "", false), node("b", "", true)},
			map[cluster.NodeID]string{"a": "b:1", "b": "c:1", "c": "a:1"},
		},
		{
			"another rack first",
			[]*agentv1.Hello{node("a", "r1", true), node("b", "r1", true), node("c", "r2", true), node("d", "r2", true)},
			map[cluster.NodeID]string{"a": "c:1", "b": "c:1", "c": "a:1", "d": "a:1"},
		},
	} {
		if d := cmp.Diff(c.want, peersOf(c.nodes)); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, d)
		}
	}
	var many []*agentv1.Hello
	for i := range 1000 {
		many = append(many, node(fmt.Sprintf("n%03d", i), "", true))
	}
	if to := peersOf(many); len(to) != 1000 || to["n999"] != "n000:1" {
		t.Errorf("of 1000 nodes %d have a peer, the last one %q", len(to), to["n999"])
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
		if l, _ := f.s1().hub.Local(1, 1); l.GetStep() != 500 || !l.GetCopied() || f.State().Job(1).Checkpoint != nil {
			f.t.Errorf("local %v, recorded %v", l, f.State().Job(1).Checkpoint)
		}
		w = runs(1, 1, 0)
		w.Checkpoint = &agentv1.Checkpoint{Step: 500, Path: "/s/job-1/step-500"}
		w.LostStep = 400
		a.report(w, runs(1, 1, 1))
		if l, lost := f.s1().hub.Local(1, 1); l != nil || lost != 400 || f.State().Job(1).Checkpoint.Step != 500 || f.written() != writes+1 {
			f.t.Errorf("local %v, recorded %v", l, f.State().Job(1).Checkpoint)
		}
		b.cancel()
		time.Sleep(3 * agentTick)
		synctest.Wait()
		if got := a.last().GetCopiesTo(); got != "" {
			f.t.Errorf("copies of a go to %q after b has left", got)
		}
	})
}
