package cluster

import (
	"bytes"
	"testing"
)

// bytesOf is the state's encoding without what every command changes: its
// index and clock.
func bytesOf(t *testing.T, s *State) []byte {
	t.Helper()
	c := s.Snapshot()
	c.index, c.now = 0, 0
	var b []byte
	if err := c.Encode(func(p []byte) error { b = append(b, p...); return nil }); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOneGPUOnTwoNodes: two agents on one machine, or an agent that came back
// with an empty state directory and another name, must not double its GPUs.
func TestOneGPUOnTwoNodes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.start(0)
	n := gpuNode(5, 4)
	n.GPUs = gpuNode(0, 4).GPUs
	f.refused(&RegisterNode{Node: n}, Conflict, "which is node n0's (id id-0, agent at 127.0.0.1:7000)")
	f.ok(&LoseNode{Node: "id-0", Incarnation: 1, Reason: "gone"})
	before := bytesOf(t, f.s)
	f.refused(&RegisterNode{Node: n}, Conflict, "job 1 still holds on the lost node n0")
	if !bytes.Equal(before, bytesOf(t, f.s)) {
		t.Fatal("a refused command changed the state")
	}
	f.report(id, 1, WorkerExited, 1)
	f.ok(&RegisterNode{Node: n})
	if got := f.s.Node("id-0"); len(got.GPUs) != 0 {
		t.Fatalf("the lost node keeps %d GPUs that another one has now", len(got.GPUs))
	}
	f.refused(&RegisterNode{Node: gpuNode(0, 4)}, Conflict, "which is node n5's")
	copied, err := Decode(bytesOf(t, f.s), Version)
	if err != nil {
		t.Fatal(err)
	}
	if err := copied.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedRegistrationDropsNoNode: a node that would take over a lost one's
// name, but is refused for another reason, leaves it alone.
func TestRefusedRegistrationDropsNoNode(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	newer := gpuNode(1, 4)
	newer.Incarnation = 2
	f.ok(&RegisterNode{Node: newer})
	f.ok(&LoseNode{Node: "id-0", Incarnation: 1, Reason: "gone"})
	before := bytesOf(t, f.s)
	older := gpuNode(1, 4)
	older.Name = "n0"
	f.refused(&RegisterNode{Node: older}, Conflict, "incarnation 1 is older than 2")
	if !bytes.Equal(before, bytesOf(t, f.s)) {
		t.Fatal("a refused command changed the state")
	}
}

// TestNodesAreBounded: an agent that makes up node after node cannot fill the
// servers' memory; nodes that are known already are not concerned.
func TestNodesAreBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := f.s.Nodes(); i < MaxNodes; i++ {
		if r := f.s.Apply(f.i, 0, &RegisterNode{Node: gpuNode(i, 0)}); r.Code != OK {
			t.Fatal(r.Message)
		}
	}
	f.refused(&RegisterNode{Node: gpuNode(MaxNodes, 0)}, TooMany, "65536 nodes")
	f.ok(&RegisterNode{Node: gpuNode(1, 4)})
}
