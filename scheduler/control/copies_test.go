package control

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/scheduler/cluster"
)

func TestCopyPeers(t *testing.T) {
	t.Parallel()
	node := func(id, rack string) Keeper {
		return Keeper{Node: cluster.NodeID(id), Address: id + ":1", Rack: rack}
	}
	for _, c := range []struct {
		name  string
		nodes []Keeper
		want  map[cluster.NodeID]string
	}{
		{"alone", []Keeper{node("a", "")}, map[cluster.NodeID]string{}},
		{
			"a ring",
			[]Keeper{node("c", ""), node("a", ""), node("b", "")},
			map[cluster.NodeID]string{"a": "b:1", "b": "c:1", "c": "a:1"},
		},
		{
			"another rack first",
			[]Keeper{node("a", "r1"), node("b", "r1"), node("c", "r2"), node("d", "r2")},
			map[cluster.NodeID]string{"a": "c:1", "b": "c:1", "c": "a:1", "d": "a:1"},
		},
	} {
		if d := cmp.Diff(c.want, CopyPeers(c.nodes)); d != "" {
			t.Errorf("%s: (-want +got)\n%s", c.name, d)
		}
	}
	var many []Keeper
	for i := range 1000 {
		many = append(many, node(fmt.Sprintf("n%03d", i), ""))
	}
	if to := CopyPeers(many); len(to) != 1000 || to["n999"] != "n000:1" {
		t.Errorf("of 1000 nodes %d have a peer, the last one %q", len(to), to["n999"])
	}
}
