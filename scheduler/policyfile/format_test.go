package policyfile

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestRoundTrip: what Format writes, Parse reads as the same policy.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := drawPolicy(t)
		if err := want.Validate(); err != nil {
			t.Fatalf("the generator made a bad policy: %v", err)
		}
		text := Format(want)
		got, err := Parse(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s\n%s", diff, text)
		}
		if again := Format(got); string(again) != string(text) {
			t.Fatalf("a second round differs:\n%s\n%s", text, again)
		}
	})
}

// words that YAML could take for something else, beside random ones.
func drawWord(t *rapid.T, label string) string {
	return rapid.OneOf(
		rapid.SampledFrom([]string{"h100", "true", "null", "~", "123", "1e3", "0x10", "*a", "&a", "!!int", "a: b", "a #b", "- x", "{", "'", `"`, " ", "é", "\u2028", "\ufeff", "<<", "=", "2026-12-01"}),
		rapid.StringOfN(rapid.RuneFrom([]rune("abcXYZ019-_./ :#'\"{}[],&*!|>%@`é\u2028\U0001F600")), 1, 12, 60),
	).Draw(t, label)
}

func drawPolicy(t *rapid.T) *cluster.Policy {
	span := func(label string, least time.Duration) time.Duration {
		return time.Duration(rapid.Int64Range(int64(least), int64(9*365*24*time.Hour)).Draw(t, label))
	}
	count := func(label string, most int64) int64 { return rapid.Int64Range(0, most).Draw(t, label) }
	p := &cluster.Policy{
		Order: rapid.SampledFrom([]cluster.OrderName{
			cluster.OrderGangline, cluster.OrderFIFO, cluster.OrderLAS, cluster.OrderQSSF, cluster.OrderSJF, cluster.OrderSRTF,
		}).Draw(t, "order"),
		Score:    rapid.SampledFrom([]cluster.ScoreName{cluster.ScoreGangline, cluster.ScoreFGD, cluster.ScoreBestFit, cluster.ScoreConsolidated}).Draw(t, "score"),
		HalfLife: span("half_life", time.Minute), Setback: min(span("setback", 0), 30*24*time.Hour),
		Preemption: cluster.Preemption{
			Off: rapid.Bool().Draw(t, "off"), MinRuntime: span("min_runtime", 0), RestartCost: span("restart_cost", 0),
			MaxPerJob: int32(count("max_per_job", 1e6)), MinGain: count("min_gain", 1e6),
		},
		Backfill: cluster.Backfill{Off: rapid.Bool().Draw(t, "off"), Reserve: int32(count("reserve", 64)), HoldAfter: span("hold_after", 0)},
		Defrag:   cluster.Defrag{On: rapid.Bool().Draw(t, "on"), MaxPerHour: int32(count("max_per_hour", 1e6)), MaxCost: span("max_cost", 0)},
	}
	p.Checkpoints.UserBytes = count("user_limit", 1<<50)
	for i := range rapid.IntRange(0, 3).Draw(t, "users") {
		p.Checkpoints.Users = append(p.Checkpoints.Users, cluster.UserBytes{User: fmt.Sprint(i, drawWord(t, "user")), Bytes: count("bytes", 1<<50)})
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "levels") {
		name := fmt.Sprint(drawWord(t, "level"), i) // "node" is taken, and names are unique
		l := cluster.Level{Name: name, Label: fmt.Sprint(drawWord(t, "label"), i)}
		for d := range rapid.IntRange(0, 3).Draw(t, "domains") {
			domain := cluster.LevelDomain{Name: rapid.SampledFrom([]string{"r", "1", "true"}).Draw(t, "domain") + fmt.Sprint(d)}
			for k := range rapid.IntRange(1, 3).Draw(t, "patterns") {
				domain.Nodes = append(domain.Nodes, fmt.Sprintf(rapid.SampledFrom([]string{"n%d_%d", "n%d-%d[001-003,7]", "1%d.%d"}).Draw(t, "pattern"), d, k))
			}
			l.Domains = append(l.Domains, domain)
		}
		slices.SortFunc(l.Domains, func(a, b cluster.LevelDomain) int { return cmp.Compare(a.Name, b.Name) })
		p.Levels = append(p.Levels, l)
	}
	for _, name := range drawTypes(t, "weights") {
		p.Weights = append(p.Weights, cluster.TypeWeight{Type: name, Milli: 1 + count("milli", 999_999)})
	}
	p.Queues = drawQueues(t, "", 3)
	slices.SortFunc(p.Queues, func(a, b cluster.QueuePolicy) int { return cmp.Compare(a.Path, b.Path) })
	for i := range rapid.IntRange(0, 3).Draw(t, "windows") {
		w := cluster.Window{Name: fmt.Sprint(i, drawWord(t, "window")), Start: cluster.Time(1 + count("start", 1e18))}
		w.End = w.Start + 1 + cluster.Time(count("end", 1e18))
		w.Nodes = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawWord(t, "node") }), 0, 3).Draw(t, "nodes")
		for k := range rapid.IntRange(0, 2).Draw(t, "labels") {
			w.Selector = append(w.Selector, cluster.Label{Key: fmt.Sprint(drawWord(t, "key"), k), Value: drawWord(t, "value")})
		}
		if w.Maintenance = len(p.Queues) == 0 || rapid.Bool().Draw(t, "maintenance"); !w.Maintenance {
			w.Queue = p.Queues[rapid.IntRange(0, len(p.Queues)-1).Draw(t, "queue")].Path
		}
		p.Windows = append(p.Windows, w)
	}
	return p
}

// drawTypes makes a sorted list of GPU types. "all" is none: a file means all
// types together by it.
func drawTypes(t *rapid.T, label string) []string {
	out := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) string { return drawWord(t, "type") }), 0, 3, rapid.ID).Draw(t, label)
	out = slices.DeleteFunc(out, func(s string) bool { return s == allTypes })
	slices.Sort(out)
	return out
}

func drawQueues(t *rapid.T, above string, depth int) []cluster.QueuePolicy {
	var out []cluster.QueuePolicy
	for i := range rapid.IntRange(0, 3).Draw(t, "queues") {
		name := rapid.SampledFrom([]string{"a", "a-b", "true", "123", "null", "1.5", "Z_"}).Draw(t, "name") + fmt.Sprint(i)
		q := cluster.QueuePolicy{
			Path: above + name, Weight: 1 + rapid.Int64Range(0, 999_999).Draw(t, "weight"),
			UserLimit: rapid.Int64Range(0, 100).Draw(t, "user_limit"), Closed: rapid.Bool().Draw(t, "closed"),
		}
		if rapid.Bool().Draw(t, "all") {
			q.Quota = append(q.Quota, cluster.TypeCount{GPUs: 1000})
			q.Limit = append(q.Limit, cluster.TypeCount{GPUs: rapid.Int64Range(1000, 2000).Draw(t, "limit")})
		}
		for _, name := range drawTypes(t, "types") {
			q.Limit = append(q.Limit, cluster.TypeCount{Type: name, GPUs: rapid.Int64Range(0, 9).Draw(t, "limit")})
		}
		if depth > 0 {
			below := drawQueues(t, q.Path+"/", depth-1)
			for k := range below { // a queue promises no more than it has
				if q.Quota != nil {
					below[k].Quota = nil
				}
			}
			out = append(out, below...)
		}
		out = append(out, q)
	}
	return out
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("queues: {a: {quota: {all: 3}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			return
		}
		again, err := Parse(Format(p))
		if err != nil {
			t.Fatalf("%v\n%s", err, Format(p))
		}
		if diff := gocmp.Diff(p, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// BenchmarkParse reads a policy of 500 queues.
func BenchmarkParse(b *testing.B) {
	p := cluster.DefaultPolicy()
	for i := range 500 {
		p.Queues = append(p.Queues, cluster.QueuePolicy{Path: fmt.Sprintf("q%03d", i), Weight: 1000, Quota: []cluster.TypeCount{{Type: "h100", GPUs: 8}}})
	}
	text := Format(p)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
