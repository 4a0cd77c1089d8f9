package policyfile

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/yamlfile"
)

const whole = `
order: las
score: fgd
fair_share: {half_life: 2d, setback: 90m, gpu_weights: {h100: 2, a100: 0.5}}
topology: [{level: row, label: row}, {level: rack, label: topology.gangline.dev/rack}]
preemption: {enabled: false, min_runtime: 10m, restart_cost: 90s, max_per_job: 3, min_gain: 1.5}
backfill: {enabled: false, reserve: 2, hold_after: 1m}
defragmentation: {enabled: true, max_per_hour: 4, max_cost: 1h30m}
reservations:
  - {name: demo-day, start: 2026-12-01T09:00:00+01:00, end: 2026-12-01T17:00:00Z, nodes: [n1, n2], queue: research}
  - {name: cooling, start: 2026-11-01T00:00:00Z, end: 2026-11-02T00:00:00Z, node_selector: {rack: r7}, maintenance: true}
queues:
  research:
    quota: {h100: 64, a100: 8}
    limit: {h100: 128, all: 200}
    weight: 2.25
    user_limit: 32
    queues:
      vision: {quota: {h100: 10}}
      nlp: {closed: true}
  default:
  batch: {quota: 16, limit: 100}
`

func TestParse(t *testing.T) {
	t.Parallel()
	at := func(s string) cluster.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return cluster.Time(v.UnixNano())
	}
	want := &cluster.Policy{
		Order: cluster.OrderLAS, Score: cluster.ScoreFGD, HalfLife: 48 * time.Hour, Setback: 90 * time.Minute,
		Weights:    []cluster.TypeWeight{{Type: "a100", Milli: 500}, {Type: "h100", Milli: 2000}},
		Levels:     []cluster.Level{{Name: "row", Label: "row"}, {Name: "rack", Label: "topology.gangline.dev/rack"}},
		Preemption: cluster.Preemption{Off: true, MinRuntime: 10 * time.Minute, RestartCost: 90 * time.Second, MaxPerJob: 3, MinGain: 1500},
		Backfill:   cluster.Backfill{Off: true, Reserve: 2, HoldAfter: time.Minute},
		Defrag:     cluster.Defrag{On: true, MaxPerHour: 4, MaxCost: 90 * time.Minute},
		Windows: []cluster.Window{
			{
				Name: "cooling", Start: at("2026-11-01T00:00:00Z"), End: at("2026-11-02T00:00:00Z"),
				Selector: []cluster.Label{{Key: "rack", Value: "r7"}}, Maintenance: true,
			},
			{Name: "demo-day", Start: at("2026-12-01T08:00:00Z"), End: at("2026-12-01T17:00:00Z"), Nodes: []string{"n1", "n2"}, Queue: "research"},
		},
		Queues: []cluster.QueuePolicy{
			{Path: "batch", Weight: 1000, Quota: []cluster.TypeCount{{GPUs: 16}}, Limit: []cluster.TypeCount{{GPUs: 100}}},
			{Path: "default", Weight: 1000},
			{
				Path: "research", Weight: 2250, UserLimit: 32,
				Quota: []cluster.TypeCount{{Type: "a100", GPUs: 8}, {Type: "h100", GPUs: 64}},
				Limit: []cluster.TypeCount{{GPUs: 200}, {Type: "h100", GPUs: 128}},
			},
			{Path: "research/nlp", Weight: 1000, Closed: true},
			{Path: "research/vision", Weight: 1000, Quota: []cluster.TypeCount{{Type: "h100", GPUs: 10}}},
		},
	}
	got, err := Parse([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

// TestWhatIsNotNamedStaysDefault: a file holds only what differs.
func TestWhatIsNotNamedStaysDefault(t *testing.T) {
	t.Parallel()
	want := cluster.DefaultPolicy()
	for _, file := range []string{"{}", "preemption:\nqueues:\nreservations:\n"} {
		got, err := Parse([]byte(file))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q:\n%s", file, diff)
		}
	}
	got, err := Parse([]byte("preemption: {min_runtime: 0s}\ntopology: []\n"))
	if err != nil {
		t.Fatal(err)
	}
	want.Preemption.MinRuntime, want.Levels = 0, nil
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

// TestDefaultsFormat is what `gangline policy show` prints of a new cluster.
func TestDefaultsFormat(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("testdata/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(Format(cluster.DefaultPolicy()))); diff != "" {
		t.Fatal(diff)
	}
}

// TestErrors: each says where, what and what is allowed.
func TestErrors(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"":                                      `the policy is empty: write {} to have all defaults`,
		"- a\n":                                 `line 1, column 1: expected a map, not a list`,
		"order: [\n":                            `not valid YAML`,
		"{}\n---\n{}\n":                         `a second document begins here`,
		"ordr: fifo\n":                          `line 1, column 1: unknown field "ordr" (did you mean "order"?): allowed are order, score, fair_share,`,
		"order: lifo\n":                         `line 1, column 8: order: "lifo" is not one of gangline, fifo, las, qssf`,
		"order: [fifo]":                         `line 1, column 8: order: expected one value, not a list`,
		"order:\n":                              `line 1, column 7: order: expected one value, not a nothing`,
		"score: first\n":                        `line 1, column 8: score: "first" is not one of gangline, fgd, bestfit, consolidated`,
		"\npreemption: {restart: 5m}":           `line 2, column 14: preemption: unknown field "restart": allowed are enabled, min_runtime, restart_cost,`,
		"preemption: {min_runtime: 5}":          `line 1, column 27: preemption.min_runtime: "5" is not a duration with a unit`,
		"preemption: {min_gain: 0.12345}":       `is not a number with at most three decimals`,
		"preemption: {max_per_job: -1}":         `line 1, column 27: preemption.max_per_job: -1 is not in 0..1000000`,
		"backfill: {enabled: yes}":              `line 1, column 21: backfill.enabled: "yes" is not true or false`,
		"backfill: {reserve: 1000}":             `line 1, column 21: backfill.reserve: 1000 is not in 0..64`,
		"backfill: 3":                           `line 1, column 11: backfill: expected a map, not a single value`,
		"checkpoints: {user_limit: 10}":         `line 1, column 27: checkpoints.user_limit: "10" is not a size with a unit`,
		"checkpoints: {user_limit: 0GiB}":       `would let nobody save anything`,
		"checkpoints: {users: {ann: much}}":     `checkpoints.users: ann: "much" is not a size`,
		"checkpoints: {users: [ann]}":           `checkpoints.users: expected a map, not a list`,
		"fair_share: {setback: 31d}":            `line 1, column 23: fair_share.setback: 744h0m0s is not in 0s..30 days`,
		"fair_share: {half_life: 1s}":           `line 1, column 25: fair_share.half_life: 1s is not in 1m..10 years`,
		"fair_share: {gpu_weights: {h100: -1}}": `line 1, column 34: fair_share.gpu_weights: h100: -1 is not in 0.001..1000`,
		"topology: rack":                        `line 1, column 11: topology: expected a list, not a single value`,
		"topology: [{level: node, label: a}]":   `line 1, column 20: topology: level "node" is named twice (node, island and numa are always there)`,
		"topology: [{level: r, domains: {x: n1, y: 'n[1-2]'}}]":              `line 1, column 43: topology: level r: domain y: node n1 is in domain x already`,
		"topology:\n- level: r\n  domains:\n    x: n[3-1]\n":                 `line 4, column 8: topology: level r: domain x: "n[3-1]": "3-1": the smaller number comes first`,
		"topology:\n- level: r\n  domains:\n    x: n[3-1\n":                  `line 4, column 8: topology: level r: domain x: "n[3-1": a bracket is not closed`,
		"topology: [{level: r, domains: {x: []}}]":                           `line 1, column 36: topology: level r: domain x has no nodes`,
		"topology: [{level: r, domains: [a]}]":                               `line 1, column 32: topology: domains: expected a map, not a list`,
		"topology: [{level: r}, {level: s, label: topology.gangline.dev/r}]": `topology: level s: label topology.gangline.dev/r is that of a wider level`,
		"queues: {a: {quota: 3}, a: {quota: 4}}":                             `line 1, column 25: queues: "a" is given twice, first on line 1`,
		"queues: {a b: {}}":                                                  `line 1, column 10: queue: "a b" is not a path of names`,
		"queues: {a/b: {}}":                                                  `line 1, column 10: queue a/b: its parent a is not in the policy`,
		"queues: {a: {quota: {h100: many}}}":                                 `line 1, column 28: queue a: quota: h100: "many" is not a whole number`,
		"queues: {a: {quota: 4, limit: 3}}":                                  `line 1, column 31: queue a: limit of 3 is below its quota of 4 GPUs`,
		"queues: {a: {weight: -2}}":                                          `line 1, column 22: queue a: weight: -2 is not in 0.001..1000`,
		"queues: {a: {wieght: 2}}":                                           `line 1, column 14: queue a: unknown field "wieght" (did you mean "weight"?)`,
		"queues:\n  a: {quota: 4, queues: {b: {quota: 3}, c: {quota: 2}}}\n": `line 2, column 3: queue a: its children's quotas of type "" add up to 5 GPUs`,
		"reservations: [{start: 2026-12-01T09:00:00Z}]":                      `line 1, column 16: reservations: a reservation needs a name`,
		"reservations: [{name: x, maintenance: true}]":                       `line 1, column 16: reservations: x: start is missing`,
		"reservations: [{name: x, start: tomorrow}]":                         `reservations: x: start: "tomorrow" is not a time with its zone`,
		"a: &a {b: *a}\n":                                                    `line 1, column 11: the alias *a stands inside of what it names, which makes a cycle`,
		"? [a]\n: b\n":                                                       `expected a name, not a list`,
	} {
		_, err := Parse([]byte(file))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q:\n got %v\nwant %s", file, err, want)
		}
	}
}

// TestAllProblemsAtOnce: in the order of the file, each once, and what could
// not be read is not judged as well.
func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte(`order: lifo
preemption:
  min_runtime: 5
  foo: 1
reservations:
  - {name: x, start: never, end: 2026-12-01T09:00:00Z, queue: nowhere}
queues:
  a: {quota: many, weight: 0}
  b: {quota: 5, limit: 4}
`))
	var got []string
	for _, e := range flatten(err) {
		var place *yamlfile.Error
		if !errors.As(e, &place) {
			t.Fatalf("%v has no place", e)
		}
		got = append(got, e.Error())
	}
	want := []string{
		`line 1, column 8: order: "lifo" is not one of gangline, fifo, las, qssf (and sjf, srtf in the simulator)`,
		`line 3, column 16: preemption.min_runtime: "5" is not a duration with a unit: write it like 90s, 15m, 24h or 2d (allowed units: ms s m h d)`,
		`line 4, column 3: preemption: unknown field "foo": allowed are enabled, min_runtime, restart_cost, max_per_job, min_gain`,
		`line 6, column 22: reservations: x: start: "never" is not a time with its zone, such as 2026-12-01T09:00:00Z or 2026-12-01T09:00:00+01:00`,
		`line 8, column 14: queue a: quota: "many" is not a whole number in range`,
		`line 8, column 28: queue a: weight: 0 is not in 0.001..1000`,
		`line 9, column 24: queue b: limit of 4 is below its quota of 5 GPUs of type ""`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte(strings.Repeat("x: 1\n", 1000)))
	if got := flatten(err); len(got) != maxProblems+1 || !strings.Contains(got[maxProblems].Error(), "and 950 more problems") {
		t.Fatalf("%d problems, the last %v", len(got), got[len(got)-1])
	}
}

// TestAliases: one value may serve many queues, but a small file cannot mean
// billions of values.
func TestAliases(t *testing.T) {
	t.Parallel()
	p, err := Parse([]byte("queues:\n  a: &same {quota: 3}\n  b: *same\n"))
	if err != nil || p.Queue("b").Quota[0].GPUs != 3 {
		t.Fatalf("%+v, %v", p, err)
	}
	bomb := "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
	for c := byte('b'); c < 'k'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+", ", 10), ", ") + "]\n"
	}
	if _, err := Parse([]byte(bomb)); err == nil || !strings.Contains(err.Error(), "with its aliases the file has more than") {
		t.Fatal(err)
	}
}

func TestForServers(t *testing.T) {
	t.Parallel()
	for _, order := range []cluster.OrderName{cluster.OrderGangline, cluster.OrderFIFO, cluster.OrderLAS, cluster.OrderQSSF, cluster.OrderSJF, cluster.OrderSRTF} {
		p, err := Parse([]byte("order: " + string(order)))
		if err != nil {
			t.Fatal(err)
		}
		onlySim := order == cluster.OrderSJF || order == cluster.OrderSRTF
		if err := ForServers(p); (err != nil) != onlySim {
			t.Errorf("%s: %v", order, err)
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	got := strings.Join(Fields(), " ")
	for _, want := range []string{"order score fair_share.half_life", "preemption.min_gain", "reservations.node_selector", "queues.quota", "queues.queues"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
}
