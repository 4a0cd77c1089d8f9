package quota

import (
	"fmt"
	"math"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

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
		if steps := p.tree.Steps(q, user, p.now); steps*Step > got || (steps+1)*Step <= got {
			p.t.Fatalf("%s of %s: factor %d, that is %d steps?", user, path, got, steps)
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
				p.tree.Steps(p.tree.Queue("a"), "ann", p.now)
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
			out = append(out, fmt.Sprint(path, user, v.OK, v.Guaranteed, v.Cause, v.Have, tree.Factor(q, user, p.now), tree.Steps(q, user, p.now), len(q.users), q.shares, tree.Borrowed(q, "a100")))
		}
	}
	return out
}
