package quota

import (
	"math"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

var types = []string{"a100", "h100"}

// drawPolicy makes a tree of up to three levels in which no queue promises
// more than it has, and none of the top ones together more than 40 of a type.
func drawPolicy(t *rapid.T, limits bool) *cluster.Policy {
	p := cluster.DefaultPolicy()
	p.HalfLife = rapid.SampledFrom([]time.Duration{time.Minute, 61 * time.Second, time.Hour, 7 * 24 * time.Hour}).Draw(t, "half-life")
	p.Weights = []cluster.TypeWeight{{Type: "h100", Milli: 2500}}
	var grow func(above string, left [2]int64, depth int)
	grow = func(above string, left [2]int64, depth int) {
		for _, name := range []string{"a", "a-b", "c"} {
			if rapid.IntRange(0, 3).Draw(t, "exists") == 0 {
				continue
			}
			q := cluster.QueuePolicy{Path: above + name, Weight: rapid.SampledFrom([]int64{1, 1000, 5000}).Draw(t, "weight")}
			mine := left
			if kind := rapid.IntRange(0, 3).Draw(t, "quota"); kind > 0 {
				for i, typ := range types {
					if kind&(i+1) == 0 {
						mine[i] = 0
						continue
					}
					mine[i] = rapid.Int64Range(0, left[i]).Draw(t, typ)
					q.Quota = append(q.Quota, cluster.TypeCount{Type: typ, GPUs: mine[i]})
				}
			}
			if limits && rapid.Bool().Draw(t, "limited") {
				q.Limit = append(q.Limit, cluster.TypeCount{GPUs: rapid.Int64Range(80, 90).Draw(t, "total")}, cluster.TypeCount{Type: "h100", GPUs: rapid.Int64Range(40, 50).Draw(t, "limit")})
				q.UserLimit = rapid.Int64Range(0, 20).Draw(t, "user")
			}
			p.Queues = append(p.Queues, q)
			for i := range left {
				left[i] -= mine[i]
			}
			if depth > 1 {
				grow(q.Path+"/", mine, depth-1)
			}
		}
	}
	grow("", [2]int64{40, 40}, 3)
	slices.SortFunc(p.Queues, func(a, b cluster.QueuePolicy) int { return strings.Compare(a.Path, b.Path) })
	if err := p.Validate(); err != nil {
		t.Fatalf("bad policy: %v", err)
	}
	return p
}

// model is a second opinion: it remembers single holdings and adds them up for each question.
type model struct {
	p        *cluster.Policy
	queues   []string // all that were named, the policy's among them
	holdings map[holding]int64
	pending  map[[2]string]int
	accounts map[[2]string]*cluster.Account
}

type holding struct{ queue, user, typ string }

func (m *model) above(path string) string {
	path = cluster.ParentQueue(path)
	for path != "" && m.p.Queue(path) == nil {
		path = cluster.ParentQueue(path)
	}
	return path
}

func (m *model) within(path, top string) bool {
	for ; path != ""; path = m.above(path) {
		if path == top {
			return true
		}
	}
	return top == ""
}

func (m *model) held(top, user, typ string) (n int64) {
	for h, milli := range m.holdings {
		if m.within(h.queue, top) && (user == "" || h.user == user) && (typ == "" || h.typ == typ) {
			n += milli
		}
	}
	return n
}

func (m *model) quota(path, typ string) (n int64) {
	if q := m.p.Queue(path); q != nil && len(q.Quota) > 0 {
		n, _ = cluster.CountOf(q.Quota, typ)
		return n * 1000
	}
	for _, q := range m.p.Queues {
		if m.above(q.Path) == path {
			n += m.quota(q.Path, typ)
		}
	}
	return n
}

func (m *model) guaranteed(path, typ string, milli int64) bool {
	for ; path != ""; path = m.above(path) {
		if q := m.p.Queue(path); q != nil && len(q.Quota) > 0 && m.held(path, "", typ)+milli <= m.quota(path, typ) {
			return true
		}
	}
	return false
}

func (m *model) most(path, user, typ string) int64 {
	most := int64(Unlimited)
	for ; path != ""; path = m.above(path) {
		q := m.p.Queue(path)
		if q == nil {
			continue
		}
		for _, l := range q.Limit {
			if l.Type == "" || l.Type == typ {
				most = min(most, max(l.GPUs*1000-m.held(path, "", l.Type), 0))
			}
		}
		if q.UserLimit > 0 {
			most = min(most, max(q.UserLimit*1000-m.held(path, user, ""), 0))
		}
	}
	return most
}

// owed and may are Owed and MayClaim by their definition.
func (m *model) meet(a, b string) string {
	for !m.within(b, a) {
		a = m.above(a)
	}
	return a
}

func (m *model) owed(claimer, victim, typ string) int64 {
	end := m.meet(claimer, victim)
	if claimer == victim {
		return 0
	}
	if end == victim {
		n := int64(0)
		for h, milli := range m.holdings {
			if h.queue == victim && h.typ == typ {
				n += milli
			}
		}
		return n
	}
	owed := int64(math.MaxInt64)
	for x := victim; x != end; x = m.above(x) {
		owed = min(owed, max(m.held(x, "", typ)-m.quota(x, typ), 0))
	}
	return owed
}

func (m *model) may(claimer, victim, typ string, milli int64) bool {
	end := m.meet(claimer, victim)
	if end == claimer {
		return false
	}
	x := claimer
	for m.above(x) != end {
		x = m.above(x)
	}
	return m.held(x, "", typ)+milli <= m.quota(x, typ)
}

// worth is the use of a set of accounts and holdings in GPU-hours.
func (m *model) worth(at cluster.Time, in func(queue, user string) bool) (sum float64) {
	for k, a := range m.accounts {
		if in(k[0], k[1]) {
			sum += float64(a.UsedAt(max(at, a.Since), m.p)) / 3.6e9
		}
	}
	for h, milli := range m.holdings {
		if in(h.queue, h.user) {
			sum += float64(milli) / 1000 * float64(m.p.WeightOf(h.typ)) / 1000
		}
	}
	return sum
}

func (m *model) busy(in func(queue, user string) bool) bool {
	for k := range m.accounts {
		if in(k[0], k[1]) {
			return true
		}
	}
	for k, n := range m.pending {
		if n > 0 && in(k[0], k[1]) {
			return true
		}
	}
	for h, milli := range m.holdings {
		if milli > 0 && in(h.queue, h.user) {
			return true
		}
	}
	return false
}

func (m *model) weight(path string) float64 {
	if q := m.p.Queue(path); q != nil {
		return float64(q.Weight)
	}
	return 1000
}

// factor is Factor in floating point.
func (m *model) factor(queue, user string, now cluster.Time) float64 {
	at := moment(now)
	excess := func(mine, all, weight, weights float64) float64 {
		ratio := (mine + weight/weights) / (all + 1) / (weight / weights)
		return min(max(1000*math.Log2(ratio), -3000), 3000)
	}
	users := map[string]bool{user: true}
	for _, u := range []string{"ann", "bob", "eve"} {
		users[u] = users[u] || m.busy(func(q, who string) bool { return q == queue && who == u })
		if !users[u] {
			delete(users, u)
		}
	}
	out := excess(m.worth(at, func(q, who string) bool { return q == queue && who == user }),
		m.worth(at, func(q, _ string) bool { return q == queue }), 1, float64(len(users)))
	for x := queue; x != ""; x = m.above(x) {
		up, all, weights := m.above(x), 0.0, 0.0
		for _, sibling := range m.queues {
			below := func(q, _ string) bool { return m.within(q, sibling) }
			if m.above(sibling) == up && (sibling == x || m.busy(below)) {
				all, weights = all+m.worth(at, below), weights+m.weight(sibling)
			}
		}
		out += excess(m.worth(at, func(q, _ string) bool { return m.within(q, x) }), all, m.weight(x), weights)
	}
	return out
}
