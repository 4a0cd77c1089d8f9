package quota

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
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

// pair is a tree and its model, fed with the same changes.
type pair struct {
	t    *rapid.T
	tree *Tree
	m    *model
	now  cluster.Time
}

func newPair(t *rapid.T) *pair {
	m := &model{p: drawPolicy(t, true), holdings: map[holding]int64{}, pending: map[[2]string]int{}, accounts: map[[2]string]*cluster.Account{}}
	for _, q := range m.p.Queues {
		m.queues = append(m.queues, q.Path)
	}
	m.queues = append(m.queues, "a/gone", "gone", "gone/far") // not in any policy
	return &pair{t: t, tree: New(m.p), m: m, now: 1_800_000_000 * cluster.Time(time.Second)}
}

func (p *pair) change() {
	queue := rapid.SampledFrom(p.m.queues).Draw(p.t, "queue")
	user := rapid.SampledFrom([]string{"ann", "bob", "eve"}).Draw(p.t, "user")
	key := [2]string{queue, user}
	q := p.tree.Queue(queue)
	h := holding{queue, user, rapid.SampledFrom(types).Draw(p.t, "type")}
	switch rapid.IntRange(0, 6).Draw(p.t, "change") {
	case 0, 1:
		milli := rapid.SampledFrom([]int64{250, 1000, 8000, 16000}).Draw(p.t, "milli")
		p.m.holdings[h] += milli
		p.tree.Take(q, user, h.typ, milli)
	case 2:
		p.tree.Give(q, user, h.typ, p.m.holdings[h])
		delete(p.m.holdings, h)
	case 3:
		n := rapid.IntRange(-p.m.pending[key], 2).Draw(p.t, "jobs")
		p.m.pending[key] += n
		p.tree.Pend(q, user, n)
	case 4, 5:
		p.charge(key)
	default:
		if a := p.m.accounts[key]; a != nil {
			p.tree.SetAccount(a, true)
			delete(p.m.accounts, key)
		}
	}
	step := rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, time.Hour, 30 * 24 * time.Hour}).Draw(p.t, "pass")
	p.now = p.now.Add(step)
}

// charge changes an account as cluster.State does at a start or an end.
func (p *pair) charge(key [2]string) {
	a := &cluster.Account{Queue: key[0], User: key[1]}
	if old := p.m.accounts[key]; old != nil {
		a.Used = old.UsedAt(p.now, p.m.p)
	}
	a.Used += rapid.Int64Range(1, 50).Draw(p.t, "hours") * 3_600_000_000
	a.Rate = rapid.Int64Range(0, 100_000).Draw(p.t, "rate")
	a.Since, a.Period = p.now, int64(p.now)/int64(p.m.p.DecayPeriod())
	p.m.accounts[key] = a
	p.tree.SetAccount(a, false)
}

// TestAgainstModel: after any changes, the tree says what adding up anew says.
func TestAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		for range rapid.IntRange(1, 30).Draw(t, "changes") {
			p.change()
			if rapid.IntRange(0, 9).Draw(t, "ask") == 0 {
				p.compare() // slow
			}
		}
		p.compare()
	})
}

func (p *pair) compare() {
	user := rapid.SampledFrom([]string{"ann", "bob", "new"}).Draw(p.t, "asks")
	milli := rapid.SampledFrom([]int64{1, 1000, 20_000}).Draw(p.t, "asks for")
	for _, path := range p.m.queues {
		q := p.tree.Queue(path)
		for _, typ := range types {
			v, most := p.tree.Check(q, user, typ, milli), p.m.most(path, user, typ)
			if v.OK != (milli <= most) || v.Have != most || p.tree.Most(q, user, typ) != most || (v.Blocker == nil) != v.OK {
				p.t.Fatalf("%s, %s: %+v; adding up says at most %d", path, typ, v, most)
			}
			if want := p.m.guaranteed(path, typ, milli); v.Guaranteed != want {
				p.t.Fatalf("%s, %s: guaranteed by %v; adding up says %v", path, typ, v.By, want)
			}
			if covered := p.tree.Covered(q, typ); v.Guaranteed != (milli <= covered) {
				p.t.Fatalf("%s, %s: %d more are guaranteed: %v, but %d are covered", path, typ, milli, v.Guaranteed, covered)
			}
			if quota, _ := p.tree.Quota(q, typ); quota != p.m.quota(path, typ) || p.tree.Used(q, typ) != p.m.held(path, "", typ) {
				p.t.Fatalf("%s, %s: quota %d, want %d; used %d, want %d", path, typ, quota, p.m.quota(path, typ), p.tree.Used(q, typ), p.m.held(path, "", typ))
			}
			for range 3 {
				victim := rapid.SampledFrom(p.m.queues).Draw(p.t, "victim")
				b := p.tree.Queue(victim)
				owed, may := p.m.owed(path, victim, typ), p.m.may(path, victim, typ, milli)
				if p.tree.Owed(q, b, typ) != owed || p.tree.MayClaim(q, b, typ, milli) != may || p.tree.CanReclaim(q, b, typ, milli) != (may && owed >= milli) {
					p.t.Fatalf("%s claims %d of %s from %s: owed %d, want %d; may %v, want %v", path, milli, typ, victim, p.tree.Owed(q, b, typ), owed, p.tree.MayClaim(q, b, typ, milli), may)
				}
			}
		}
		got, want := p.tree.Factor(q, user, p.now), p.m.factor(path, user, p.now)
		if math.Abs(float64(got)-want) > 5 {
			p.t.Fatalf("%s of %s: factor %d, adding up says %.1f", user, path, got, want)
		}
	}
}

// TestRebuiltTreeIsEqual: a tree that was fed with every change, and asked on
// the way, answers to the last bit like one made from what is.
func TestRebuiltTreeIsEqual(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		for range rapid.IntRange(1, 40).Draw(t, "changes") {
			p.change()
			if rapid.Bool().Draw(t, "ask") {
				p.tree.Factor(p.tree.Queue("a"), "ann", p.now)
			}
		}
		if diff := gocmp.Diff(p.answers(p.tree), p.answers(p.rebuilt())); diff != "" {
			t.Fatalf("fed (-) and rebuilt (+):\n%s", diff)
		}
	})
}

func (p *pair) rebuilt() *Tree {
	tree := New(p.m.p)
	for h, milli := range p.m.holdings {
		tree.Take(tree.Queue(h.queue), h.user, h.typ, milli)
	}
	for k, n := range p.m.pending {
		tree.Pend(tree.Queue(k[0]), k[1], n)
	}
	for _, a := range p.m.accounts {
		tree.SetAccount(a, false)
	}
	return tree
}

func (p *pair) answers(tree *Tree) (out []string) {
	for _, path := range p.m.queues {
		q := tree.Queue(path)
		for _, user := range []string{"ann", "bob", "eve", "new"} {
			v := tree.Check(q, user, "h100", 4000)
			out = append(out, fmt.Sprint(path, user, v.OK, v.Guaranteed, v.Cause, v.Have, tree.Factor(q, user, p.now), len(q.users), q.shares, tree.Borrowed(q, "a100")))
		}
	}
	return out
}
