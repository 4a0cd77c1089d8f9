package session

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gangline/gangline/nodeagent/socket"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// TestRankThatHangsWhileItJoins: a rank that has told where it is, and hangs before it connects, is given up after a while. The others meet again, in the same call.
func TestRankThatHangsWhileItJoins(t *testing.T) {
	t.Parallel()
	hung, err := net.Listen("tcp", "127.0.0.1:0") // from which nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close() //nolint:errcheck // a test's listener
	all := workers(t, 2, "")
	for _, w := range all {
		env, _ := w.Env()
		env.WorldSize, env.Shrinks = 3, true
		w.Env = func() (workerclient.Environment, error) { return env, nil }
	}
	met := make(chan struct{})
	go func() {
		defer close(met)
		peers := []string{"", "", hung.Addr().String()}
		for i, w := range all {
			<-w.changes
			w.address = w.agent.Notes(w.key).GetRendezvousAddress()
			peers[i] = w.address
		}
		for _, w := range all {
			w.agent.SetGang(w.key, socket.Gang{Formation: 1, Members: []int32{0, 1, 2}, Peers: peers, Secret: []byte("a secret of thirty-two bytes ....")})
		}
		introduce(t, all, 2)
	}()
	each(t, all, func(w *worker) error {
		handle, err := w.Join(JoinRequest{DetectTimeout: time.Second})
		if err != nil {
			return err
		}
		g, err := w.Group(handle)
		if err != nil {
			return err
		}
		if formation, members := g.Formation(); formation != 2 || !slices.Equal(members, []int{0, 1}) || g.WorldSize() != 2 {
			t.Errorf("rank %d is in formation %d of %v", w.key.Rank, formation, members)
		}
		if least := w.agent.Notes(w.key).GetRendezvousLeast(); least != 2 {
			t.Errorf("rank %d asked for formation %d, want 2", w.key.Rank, least)
		}
		return w.CloseGroup(handle)
	})
	<-met
}
