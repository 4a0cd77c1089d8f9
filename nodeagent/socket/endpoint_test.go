package socket

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/nodeagent/reconcile"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

// TestAbandonedRendezvousNotesNothing: the server may still work on a call that the worker has given up. It must not count as having met the
// others, nor name anybody as lost: the worker may have asked for a later formation meanwhile.
func TestAbandonedRendezvousNotesNothing(t *testing.T) {
	t.Parallel()
	s := New(Config{Host: "h"})
	t.Cleanup(s.Shutdown)
	key := reconcile.Key{Job: 1, Epoch: 1, Rank: 1}
	s.Track(key, Files{Notes: t.TempDir() + "/notes"})
	e := s.find(key)
	s.SetGang(key, Gang{Formation: 1, Members: []int32{0, 1}, Peers: []string{"x:1", "a:1"}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if answer, err := e.Rendezvous(ctx, &agentv1.RendezvousRequest{Address: "a:1"}); status.Code(err) != codes.Canceled {
		t.Errorf("answered %v, %v", answer, err)
	}
	s.SetGang(key, Gang{Formation: 3, Members: []int32{0, 1}})
	e.awaits("a:2", 2)
	e.names(ctx, 5)
	e.giveUp(ctx)
	if n := s.Notes(key); n.GetRendezvousMet() != 0 || n.GetRendezvousLost() != 0 || n.GetRendezvousLeast() != 2 {
		t.Errorf("notes %v", n)
	}
}
