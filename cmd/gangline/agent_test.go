package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gangline/gangline/nodeagent"
)

func TestWithPlace(t *testing.T) {
	t.Parallel()
	given := map[string]string{"disk": "nvme", nodeagent.LabelRack: "r12"}
	for _, c := range []struct {
		labels      map[string]string
		rack, block string
		want        map[string]string
		fails       string
	}{
		{nil, "", "", nil, ""},
		{nil, "r1", "b1", map[string]string{nodeagent.LabelRack: "r1", nodeagent.LabelBlock: "b1"}, ""},
		{given, "r12", "", given, ""},
		{given, "", "b3", map[string]string{"disk": "nvme", nodeagent.LabelRack: "r12", nodeagent.LabelBlock: "b3"}, ""},
		{given, "r13", "", nil, "contradict"},
	} {
		got, err := withPlace(c.labels, c.rack, c.block)
		if (err != nil) != (c.fails != "") || (err != nil && !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%v, rack %q, block %q: error %v, want %q", c.labels, c.rack, c.block, err, c.fails)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%v, rack %q, block %q (-want +got):\n%s", c.labels, c.rack, c.block, diff)
		}
	}
}
