package socket_test

import (
	"testing"

	"github.com/gangline/gangline/nodeagent/socket"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// meet asks for the rendezvous, and gives where the answer comes.
func meet(t *testing.T, d *door, address string, formation int32) chan *agentv1.RendezvousResponse {
	t.Helper()
	answered := make(chan *agentv1.RendezvousResponse, 1)
	go func() {
		answer, err := d.Rendezvous(within(t), &agentv1.RendezvousRequest{Address: address, Formation: formation})
		if err != nil {
			t.Error(err)
		}
		answered <- answer
	}()
	return answered
}

// TestRendezvousInALaterFormation: a worker whose ring broke is told of a later set of members only, at its new address, by its place among them;
// and who watches notices hears that the set has changed.
func TestRendezvousInALaterFormation(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 3)
	first := meet(t, d, "a:1", 0)
	<-d.changes
	d.SetGang(d.key, socket.Gang{Formation: 1, Members: []int32{0, 1, 2, 3}, Peers: []string{"w:1", "x:1", "y:1", "a:1"}})
	if a := <-first; a.GetRank() != 3 || a.GetFormation() != 1 || d.Notes(d.key).GetRendezvousMet() != 1 {
		t.Errorf("first: %v, met %d", a, d.Notes(d.key).GetRendezvousMet())
	}
	notices, err := d.WatchNotices(within(t), &agentv1.WatchNoticesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	// Ranks 0 and 2 are lost, one after the other.
	d.SetGang(d.key, socket.Gang{Formation: 2, Members: []int32{1, 2, 3}})
	if n, err := notices.Recv(); err != nil || n.GetReform().GetFormation() != 2 {
		t.Fatalf("notice %v, %v", n, err)
	}
	second := meet(t, d, "a:2", 2)
	if n := <-d.changes; n.GetRendezvousMet() != 0 || n.GetRendezvousLeast() != 2 || n.GetRendezvousAddress() != "a:2" {
		t.Errorf("while it waits its notes are %v", n)
	}
	d.SetGang(d.key, socket.Gang{Formation: 3, Members: []int32{1, 3}})
	d.SetGang(d.key, socket.Gang{Formation: 2, Members: []int32{1, 2, 3}, Peers: []string{"x:2", "y:2", "a:2"}}) // too late
	select {
	case a := <-second:
		t.Fatalf("answered with a formation that is over: %v", a)
	default:
	}
	d.SetGang(d.key, socket.Gang{Formation: 3, Members: []int32{1, 3}, Peers: []string{"x:2", "a:2"}, Secret: []byte("s")})
	if a := <-second; a.GetRank() != 1 || a.GetFormation() != 3 || len(a.GetMembers()) != 2 || string(a.GetSecret()) != "s" {
		t.Errorf("second: %v", a)
	}
}

// TestWhomAWorkerLostIsToldLater: at first a worker only asks for a new formation; whom it lost is told when it has waited for long.
func TestWhomAWorkerLostIsToldLater(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 0)
	go func() {
		_, _ = d.Rendezvous(within(t), &agentv1.RendezvousRequest{Address: "a:1", Formation: 2, Lost: 4}) // ends with the test
	}()
	if n := <-d.changes; n.GetRendezvousLeast() != 2 || n.GetRendezvousLost() != 0 {
		t.Errorf("at first it is told %v", n)
	}
	if n := <-d.changes; n.GetRendezvousLeast() != 2 || n.GetRendezvousLost() != 4 {
		t.Errorf("later it is told %v", n)
	}
}

// TestLostAnswerIsAskedForAgain: a worker asks again since it did not hear that it had met the others, and meanwhile their formation is over. It is
// noted as waiting for the next, or nobody would give it the new addresses.
func TestLostAnswerIsAskedForAgain(t *testing.T) {
	t.Parallel()
	d := open(t, t.TempDir(), 1)
	first := meet(t, d, "a:1", 0)
	<-d.changes
	d.SetGang(d.key, socket.Gang{Formation: 1, Members: []int32{0, 1, 2}, Peers: []string{"x:1", "a:1", "y:1"}})
	<-first // and is lost on its way
	d.SetGang(d.key, socket.Gang{Formation: 2, Members: []int32{0, 1}})
	again := meet(t, d, "a:1", 0)
	if n := <-d.changes; n.GetRendezvousMet() != 0 || n.GetRendezvousLeast() != 2 || n.GetRendezvousAddress() != "a:1" {
		t.Errorf("while it waits its notes are %v", n)
	}
	d.SetGang(d.key, socket.Gang{Formation: 2, Members: []int32{0, 1}, Peers: []string{"x:2", "a:1"}})
	if a := <-again; a.GetFormation() != 2 || a.GetRank() != 1 || d.Notes(d.key).GetRendezvousMet() != 2 {
		t.Errorf("answer %v, notes %v", a, d.Notes(d.key))
	}
}
