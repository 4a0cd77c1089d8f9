package policyfile

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

func TestChanges(t *testing.T) {
	t.Parallel()
	was, err := Parse([]byte("queues: {a: {quota: 4, queues: {b: {}}}, gone: {}}\nfair_share: {gpu_weights: {h100: 2}}\ntopology: []"))
	if err != nil {
		t.Fatal(err)
	}
	is, err := Parse([]byte("preemption: {min_runtime: 10m}\nqueues: {a: {quota: 5, queues: {b: {}}}, new: {limit: {h100: 3}}}\n" +
		"reservations: [{name: fix, start: 2026-12-01T00:00:00Z, end: 2026-12-02T00:00:00Z, maintenance: true}]"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{
		{"topology", "[]", "[{level: block, label: topology.gangline.dev/block}, {level: rack, label: topology.gangline.dev/rack}]"},
		{"preemption.min_runtime", "5m", "10m"},
		{"reservation fix", "", "{name: fix, start: '2026-12-01T00:00:00Z', end: '2026-12-02T00:00:00Z', maintenance: true}"},
		{"queue a", "{quota: 4}", "{quota: 5}"},
		{"queue new", "", "{limit: {h100: 3}}"},
		{"fair_share.gpu_weights: h100", "2", ""},
		{"queue gone", "{}", ""},
	}
	if diff := cmp.Diff(want, Changes(was, is)); diff != "" {
		t.Fatal(diff)
	}
}

// TestChangesFindEveryDifference: there is no change exactly if the files are
// alike, and each change is on one line.
func TestChangesFindEveryDifference(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPolicy(t), drawPolicy(t)
		for _, pair := range [][2]*cluster.Policy{{a, b}, {a, a}} {
			changes := Changes(pair[0], pair[1])
			if same := string(Format(pair[0])) == string(Format(pair[1])); same != (len(changes) == 0) {
				t.Fatalf("equal files %t, changes %v", same, changes)
			}
			for _, c := range changes {
				if strings.Contains(c.Was+c.Is, "\n") || c.Was == c.Is {
					t.Fatalf("%+v", c)
				}
			}
		}
	})
}
