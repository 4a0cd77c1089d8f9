package quota

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// policy makes a policy of lines such as
// "research/nlp quota=h100:8,a100:4 limit=all:20 weight=2 user=6 closed".
func policy(t interface{ Fatalf(string, ...any) }, lines ...string) *cluster.Policy {
	p := cluster.DefaultPolicy()
	for _, line := range lines {
		words := strings.Fields(line)
		q := cluster.QueuePolicy{Path: words[0], Weight: 1000}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			number, _ := strconv.ParseInt(value, 10, 64)
			switch key {
			case "quota":
				q.Quota = typeCounts(value)
			case "limit":
				q.Limit = typeCounts(value)
			case "weight":
				q.Weight = number * 1000
			case "user":
				q.UserLimit = number
			case "closed":
				q.Closed = true
			default:
				t.Fatalf("what is %q?", w)
			}
		}
		p.Queues = append(p.Queues, q)
	}
	slices.SortFunc(p.Queues, func(a, b cluster.QueuePolicy) int { return strings.Compare(a.Path, b.Path) })
	if err := p.Validate(); err != nil {
		t.Fatalf("bad policy %v: %v", lines, err)
	}
	return p
}

// typeCounts reads "h100:8,all:20".
func typeCounts(s string) []cluster.TypeCount {
	var out []cluster.TypeCount
	for _, part := range strings.Split(s, ",") {
		name, n, _ := strings.Cut(part, ":")
		gpus, _ := strconv.ParseInt(n, 10, 64)
		if name == "all" {
			name = ""
		}
		out = append(out, cluster.TypeCount{Type: name, GPUs: gpus})
	}
	slices.SortFunc(out, func(a, b cluster.TypeCount) int { return cmp.Compare(a.Type, b.Type) })
	return out
}

// take takes whole GPUs: "research/nlp ann h100 4".
func take(tree *Tree, holdings ...string) {
	for _, h := range holdings {
		w := strings.Fields(h)
		gpus, _ := strconv.ParseInt(w[3], 10, 64)
		tree.Take(tree.Queue(w[0]), w[1], w[2], gpus*1000)
	}
}

// brief is a verdict in one line.
func brief(v Verdict) string {
	switch {
	case !v.OK:
		what := [...]string{"", "limit", "total limit", "user limit", "quota"}[v.Cause]
		return fmt.Sprintf("%s of %s: %d of %d left, needs %d", what, v.Blocker.Path, v.Have/1000, v.Limit/1000, v.Need/1000)
	case v.Guaranteed:
		return "guaranteed by " + v.By.Path
	default:
		return "borrowed"
	}
}

const hour = cluster.Time(time.Hour)

// used is an account that used so many GPU-hours until a moment and holds nothing.
func used(p *cluster.Policy, queue, user string, hours int64, at cluster.Time) *cluster.Account {
	return &cluster.Account{Queue: queue, User: user, Used: hours * 3_600_000_000, Since: at, Period: int64(at) / int64(p.DecayPeriod())}
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
