package api

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// TestSecretIsMadeOfAllShares: who has the same shares has the same secret; another job, epoch, order or share has another; none is made
// while a share is missing.
func TestSecretIsMadeOfAllShares(t *testing.T) {
	t.Parallel()
	of := func(shares ...string) *meeting {
		m := &meeting{epoch: 3}
		for _, s := range shares {
			m.shares = append(m.shares, []byte(s))
		}
		return m
	}
	secret := of("a", "b").secret(7)
	if len(secret) != 32 || !bytes.Equal(secret, of("a", "b").secret(7)) {
		t.Errorf("a leader made %x, the next one %x of the same shares", secret, of("a", "b").secret(7))
	}
	later := of("a", "b")
	later.epoch = 4
	for what, other := range map[string][]byte{
		"another share": of("a", "c").secret(7), "another order": of("b", "a").secret(7), "another job": of("a", "b").secret(8),
		"another epoch": later.secret(7),
	} {
		if bytes.Equal(secret, other) {
			t.Errorf("%s has the same secret", what)
		}
	}
	if got := of("a", "").secret(7); got != nil {
		t.Errorf("a secret of one share of two: %x", got)
	}
}

// TestReplacedStreamTellsNothing: a stream's handler that another one of the same agent has replaced may still be at an older report. The address in
// it must not take the place of the newer one, for the others would dial it.
func TestReplacedStreamTellsNothing(t *testing.T) {
	reigning(t, func(f *reignFixture) {
		a := f.agent(hello("a", 2))
		id := f.submit(nil)
		f.start(id, "a:0", "a:1")
		settle()
		status := func(address string) *agentv1.WorkerStatus {
			w := proto.CloneOf(runs(1, 1, 0))
			w.RendezvousAddress, w.RendezvousShare = address, []byte("s")
			return w
		}
		a.report(status("host-a:2"))
		f.s1().hub.gather(&agent{id: "a", workers: []*agentv1.WorkerStatus{status("host-a:1")}})
		f.s1().hub.mu.Lock()
		defer f.s1().hub.mu.Unlock()
		if got := f.s1().hub.meetings[id].addresses[0]; got != "host-a:2" {
			f.t.Errorf("the ranks are given %s", got)
		}
	})
}
