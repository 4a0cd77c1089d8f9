package quota

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gangline/gangline/scheduler/cluster"
)

func TestWarnings(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		policy   []string
		capacity string
		want     []string
	}{
		{"nothing wrong", []string{"a quota=h100:8 limit=h100:8", "b quota=a100:4"}, "h100:8,a100:4", nil},
		{"no cluster yet", []string{"a quota=h200:8"}, "", nil},
		{
			"above the cluster",
			[]string{"a quota=h100:8", "a/x quota=h100:8", "b", "b/y quota=h100:1"},
			"h100:8",
			[]string{
				"the quotas of a, b add up to 9 GPUs of type h100, the cluster has 8: not all of them can be kept at once",
			},
		},
		{"of any type", []string{"a quota=all:8", "b quota=h100:5"}, "h100:6,a100:6", []string{"the quotas of a, b add up to 13 GPUs of all types, the cluster has 12"}},
		{
			"unknown types",
			[]string{"a quota=h10:1 limit=h1000:3", "b limit=h10:4"},
			"h100:8,a100:2",
			[]string{
				`queue a: its quota names GPU type "h10", which no node has (there are a100, h100)`,
				`queue a: its limit names GPU type "h1000"`,
			},
		},
		{
			"out of reach",
			[]string{"a limit=h100:4", "a/x quota=h100:6", "b quota=h100:3,a100:3 limit=all:5"},
			"h100:90,a100:90",
			[]string{
				"queue a/x: its quota of 6 GPUs of type h100 is out of reach: queue a has a limit of 4",
				"queue b: its quotas add up to 6 GPUs, of which it can have at most 5: that is the limit of queue b",
			},
		},
		{
			"nothing can start",
			[]string{"a limit=h100:0", "b limit=all:0 closed", "c quota=h100:2 closed"},
			"h100:9",
			[]string{
				"queue a: a limit of 0 GPUs of type h100 lets no job start there",
				"queue c is closed and has a quota of 2 GPUs: it only lends them now",
			},
		},
	}
	for _, c := range cases {
		var capacity []cluster.TypeCount
		if c.capacity != "" {
			capacity = typeCounts(c.capacity)
		}
		got := Warnings(policy(t, c.policy...), capacity)
		ok := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			ok = ok && strings.HasPrefix(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	weights := cluster.DefaultPolicy()
	weights.Weights = []cluster.TypeWeight{{Type: "b200", Milli: 2000}}
	equal(t, "weights", Warnings(weights, typeCounts("h100:1"))[0][:36], `fair_share.gpu_weights names GPU type`[:36])
	var many []string
	for i := range 9 {
		many = append(many, fmt.Sprintf("q%d quota=h100:1", i))
	}
	equal(t, "many", strings.Contains(Warnings(policy(t, many...), typeCounts("h100:8"))[0], "q0, q1, q2, q3, q4 and 4 more queues add up to 9"), true)
}
