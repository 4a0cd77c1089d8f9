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
	joined, met := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(met)
		members, peers := []int32{0, 1, 2}, []string{"", "", hung.Addr().String()}
		for formation := int32(1); ; formation++ { // on a busy machine the two may lose each other, too, and ask once more
			if !introduceAsking(t, all, formation, members, peers, joined) {
				return
			}
			members, peers = members[:2], peers[:2]
		}
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
		formation, members := g.Formation()
		if formation < 2 || !slices.Equal(members, []int{0, 1}) || g.WorldSize() != 2 {
			t.Errorf("rank %d is in formation %d of %v", w.key.Rank, formation, members)
		}
		if least := int(w.agent.Notes(w.key).GetRendezvousLeast()); least != formation {
			t.Errorf("rank %d asked for formation %d, and is in %d", w.key.Rank, least, formation)
		}
		return w.CloseGroup(handle)
	})
	close(joined)
	<-met
}

// introduceAsking gives all workers a formation once they ask for it: members, whose addresses are peers but for those of the workers, which they
// have told. It gives false when all have joined. Who waits in vain is stopped.
func introduceAsking(t *testing.T, all []*worker, formation int32, members []int32, peers []string, joined <-chan struct{}) bool {
	t.Helper()
	vain := time.NewTimer(time.Minute)
	defer vain.Stop()
	for i, w := range all {
		for {
			n := w.agent.Notes(w.key)
			if peers[i] = n.GetRendezvousAddress(); peers[i] != "" && max(n.GetRendezvousLeast(), 1) >= formation {
				break
			}
			select {
			case <-w.changes:
			case <-joined:
				return false
			case <-vain.C:
				t.Errorf("rank %d does not ask for formation %d: %v", w.key.Rank, formation, n)
				for _, w := range all {
					w.agent.SetStop(w.key, socket.Stop{Reason: "the test gives up"})
				}
				return false
			}
		}
	}
	for _, w := range all {
		w.agent.SetGang(w.key, socket.Gang{Formation: formation, Members: members, Peers: peers, Secret: []byte("a secret of thirty-two bytes ....")})
	}
	return true
}
