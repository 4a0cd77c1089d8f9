package control

import (
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestLeasesAreByTheLeadersClock: a state whose clock is ahead of the leader's
// (an earlier leader's was, or this one's was set back) loses no node whose
// lease has not run out.
func TestLeasesAreByTheLeadersClock(t *testing.T) {
	t.Parallel()
	st := newStory(t)
	st.apply(t, &cluster.RegisterNode{Node: cluster.Node{ID: "a", Name: "a", Incarnation: 1}})
	now := st.now.Add(-time.Hour)
	leases := Leases{"a": now.Add(time.Second)}
	if cmds := Step(st.s, leases, now, st.cfg); len(cmds) != 0 {
		t.Fatalf("a node with a lease was given up: %+v", cmds[0])
	}
	cmds := Step(st.s, leases, now.Add(time.Second), st.cfg)
	if len(cmds) != 1 {
		t.Fatalf("got %d commands once the lease ran out, want 1", len(cmds))
	}
	if lose, ok := cmds[0].(*cluster.LoseNode); !ok || lose.Node != "a" {
		t.Fatalf("got %+v once the lease ran out", cmds[0])
	}
}
