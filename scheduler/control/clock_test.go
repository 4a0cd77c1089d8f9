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

// TestClockGoesOn: behind a state whose clock is a year ahead, time still
// passes, by the server's own seconds, also when its clock is set.
func TestClockGoesOn(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	own := cluster.Time(year)
	var c Clock
	steady, state := time.Minute, cluster.Time(0)
	check := func(why string, want cluster.Time) {
		t.Helper()
		var got cluster.Time
		if got, c = c.Read(own, steady, state); got != want {
			t.Errorf("%s: %s off", why, got.Sub(want))
		}
	}
	check("no state yet", own)
	state = own.Add(-time.Minute)
	check("a state that is behind", own)
	state = own.Add(year)
	check("a state that is ahead", state)
	own, steady = own.Add(time.Hour), steady+time.Hour
	check("an hour later", own.Add(year))
	own = own.Add(-time.Minute)
	check("set back by a minute", own.Add(year+time.Minute))
	own = own.Add(2 * year)
	check("set to far ahead", own)
}

// TestLeasesMoveWithTheClock: none is given to nodes without one.
func TestLeasesMoveWithTheClock(t *testing.T) {
	t.Parallel()
	st := newStory(t)
	for _, id := range []cluster.NodeID{"a", "b"} {
		st.apply(t, &cluster.RegisterNode{Node: cluster.Node{ID: id, Name: string(id), Incarnation: 1}})
	}
	leases := Leases{"a": 5, "gone": 6}
	if got := leases.Shift(st.s, 0); got["a"] != 5 {
		t.Errorf("not shifted: %v", got)
	}
	if got := leases.Shift(st.s, 3); len(got) != 1 || got["a"] != 8 {
		t.Errorf("got %v", got)
	}
}
