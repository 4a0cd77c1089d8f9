package quota

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

const noon = 1_800_000_000 * cluster.Time(time.Second)

// TestFairOrder: who comes first, in cases where people would agree. A story's
// lines are "held queue user gpus", "used queue user GPU-hours" or "waits queue
// user"; the order names all that wait by "queue user", the most entitled first.
func TestFairOrder(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		policy []string
		story  []string
		want   string
	}{
		{"who has used less", []string{"a", "b"}, []string{"used a ann 100", "used b bob 10", "waits a ann", "waits b bob"}, "b bob < a ann"},
		{"a double weight excuses double use, not more", []string{"a weight=2", "b"}, []string{"used a ann 190", "used b bob 100", "waits a ann", "waits b bob"}, "a ann < b bob"},
		{"more than double", []string{"a weight=2", "b"}, []string{"used a ann 220", "used b bob 100", "waits a ann", "waits b bob"}, "b bob < a ann"},
		{"equal use is equal", []string{"a", "b"}, []string{"used a ann 100", "used b bob 100", "waits a ann", "waits b bob"}, "a ann = b bob"},
		{"what is held counts at once", []string{"a", "b"}, []string{"used a ann 10", "used b bob 10", "held a ann 32", "waits a ann", "waits b bob"}, "b bob < a ann"},
		{"users of one queue", []string{"a"}, []string{"used a ann 100", "used a bob 10", "waits a ann", "waits a bob", "waits a new"}, "a new < a bob < a ann"},
		{
			"a modest user of a greedy team waits behind a modest team",
			[]string{"greedy", "modest"},
			[]string{"used greedy ann 900", "used greedy bob 100", "used modest eve 100", "waits greedy bob", "waits modest eve", "waits greedy ann"},
			"modest eve < greedy bob < greedy ann",
		},
		{
			"levels add up",
			[]string{"a", "a/x", "a/y", "b"},
			[]string{"used a/x ann 150", "used a/y bob 10", "used b eve 150", "waits a/x ann", "waits a/y bob", "waits b eve"},
			"a/y bob < b eve < a/x ann",
		},
		{"without any use all are equal", []string{"a weight=9", "b"}, []string{"waits a ann", "waits b bob"}, "a ann = b bob"},
		{"queues that nobody uses do not dilute", []string{"a", "b", "c", "d"}, []string{"used a ann 100", "used b bob 10", "waits a ann", "waits b bob"}, "b bob < a ann"},
		{"a type that weighs more costs more", []string{"a", "b"}, []string{"held a ann 8 h100", "held b bob 12 a100", "waits a ann", "waits b bob"}, "b bob < a ann"},
	}
	for _, c := range cases {
		p := policy(t, c.policy...)
		p.Weights = []cluster.TypeWeight{{Type: "h100", Milli: 2000}}
		tree := New(p)
		var waits []string
		for _, line := range c.story {
			var verb, queue, user, typ string
			var n int64
			_, _ = fmt.Sscan(line, &verb, &queue, &user, &n, &typ)
			switch q := tree.Queue(queue); verb {
			case "held":
				tree.Take(q, user, typ, n*1000)
			case "used":
				tree.SetAccount(used(p, queue, user, n, noon), false)
			default:
				tree.Pend(q, user, 1)
				waits = append(waits, queue+" "+user)
			}
		}
		factor := func(who string) int64 {
			queue, user, _ := strings.Cut(who, " ")
			return tree.Factor(tree.Queue(queue), user, noon)
		}
		slices.SortStableFunc(waits, func(a, b string) int { return int(factor(a) - factor(b)) })
		got := waits[0]
		for i := 1; i < len(waits); i++ {
			sign := " < "
			if factor(waits[i-1]) == factor(waits[i]) {
				sign = " = "
			}
			got += sign + waits[i]
		}
		if got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

func TestFactorValues(t *testing.T) {
	t.Parallel()
	p := policy(t, "a", "b", "c")
	p.HalfLife = time.Hour
	tree := New(p)
	ask := func(queue string, now cluster.Time) int64 { return tree.Factor(tree.Queue(queue), "ann", now) }
	tree.Pend(tree.Queue("a"), "ann", 1)
	tree.SetAccount(used(p, "a", "ann", 1000, noon), false)
	equal(t, "alone", ask("a", noon), 0)
	tree.Pend(tree.Queue("b"), "ann", 1)
	if got := ask("a", noon); got < 990 || got > 1000 {
		t.Errorf("one of two has had all, which is twice its part: got %d", got)
	}
	equal(t, "the other has had nothing", ask("b", noon), -3000)
	if got := ask("a", noon+40*hour); got != 0 {
		t.Errorf("after 40 half-lives it is forgotten: got %d", got)
	}
	tree.SetAccount(used(p, "b", "ann", 1000, noon), false)
	equal(t, "both the same", []int64{ask("a", noon), ask("b", noon)}, []int64{0, 0})
	tree.Pend(tree.Queue("a"), "ann", -1)
	tree.SetAccount(&cluster.Account{Queue: "a", User: "ann"}, true)
	equal(t, "who waits no more takes no part", ask("b", noon), 0)
	for range 10 {
		tree.Pend(tree.Queue("c"), "eve", 1)
	}
	equal(t, "clamped", ask("c", noon), -3000)
}

// The order is judged at whole 10 s, so it does not turn with every question.
func TestFactorIsQuantised(t *testing.T) {
	t.Parallel()
	p := policy(t, "a", "b")
	tree := New(p)
	a := used(p, "a", "ann", 0, noon)
	a.Rate = 8000
	tree.SetAccount(a, false)
	tree.Pend(tree.Queue("b"), "bob", 1)
	ask := func(now cluster.Time) int64 { return tree.Factor(tree.Queue("a"), "ann", now) }
	first := ask(noon)
	equal(t, "within 10 s", ask(noon+quantum-1), first)
	if later := ask(noon + 60*quantum); later <= first {
		t.Errorf("what is held does not count as time goes by: %d, then %d", first, later)
	}
	equal(t, "an earlier moment again", ask(noon), first)
	equal(t, "a clock that went far back", ask(hour) >= -3000, true)
}

// BenchmarkFactor asks for 500 users in a tree of 500 queues, three levels
// deep, whose accounts change one by one.
func BenchmarkFactor(b *testing.B) {
	tree, qs, p := wideTree(b)
	i := 0
	for b.Loop() {
		q := qs[i%len(qs)]
		tree.Factor(q, "u", noon+cluster.Time(i)*quantum/8)
		i++
	}
	_ = p
}

// BenchmarkChange takes, asks and gives, and changes an account, as one start does.
func BenchmarkChange(b *testing.B) {
	tree, qs, p := wideTree(b)
	tree.Factor(qs[0], "u", noon)
	i := 0
	for b.Loop() {
		q := qs[i%len(qs)]
		if v := tree.Check(q, "u", "h100", 8000); v.OK {
			tree.Take(q, "u", "h100", 8000)
			tree.SetAccount(used(p, q.Path, "u", int64(i%100), noon), false)
			tree.Give(q, "u", "h100", 8000)
		}
		i++
	}
}

func wideTree(b *testing.B) (*Tree, []*Queue, *cluster.Policy) {
	var lines []string
	for i := range 20 {
		lines = append(lines, fmt.Sprintf("team%d quota=h100:400 limit=h100:900", i))
		for k := range 4 {
			lines = append(lines, fmt.Sprintf("team%d/g%d quota=h100:50", i, k))
			for m := range 6 {
				lines = append(lines, fmt.Sprintf("team%d/g%d/p%d user=64", i, k, m))
			}
		}
	}
	p := policy(b, lines...)
	tree := New(p)
	var leaves []*Queue
	for _, q := range tree.Queues() {
		if q.depth == 3 {
			leaves = append(leaves, q)
			for u := range 10 {
				tree.SetAccount(used(p, q.Path, fmt.Sprint("u", u), int64(u), noon), false)
			}
		}
	}
	return tree, leaves, p
}
