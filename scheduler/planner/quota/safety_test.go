package quota

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// estate is a small cluster in which gangs start by the rules of this package
// alone: what is guaranteed takes back what others have borrowed, the rest
// takes what is idle.
type estate struct {
	t    *rapid.T
	p    *cluster.Policy
	tree *Tree
	runs []*gang // in order of their starts
}

type gang struct {
	q     *Queue
	typ   string
	milli int64
}

func (e *estate) put(g *gang) {
	e.tree.Take(g.q, "ann", g.typ, g.milli)
	e.runs = append(e.runs, g)
}

func (e *estate) drop(g *gang) {
	e.tree.Give(g.q, "ann", g.typ, g.milli)
	e.runs = slices.DeleteFunc(e.runs, func(o *gang) bool { return o == g })
}

// start starts a gang and returns whether it could, and how much of its use
// each queue had before it was taken from.
func (e *estate) start(g *gang) bool {
	v := e.tree.Check(g.q, "ann", g.typ, g.milli)
	for v.Guaranteed && e.tree.Idle(g.typ) < g.milli {
		victim := e.victim(g)
		if victim == nil {
			e.t.Fatalf("%s may have %d of %s by the quota of %s, but nothing that others hold can be taken back", g.q, g.milli, g.typ, v.By)
		}
		e.checkVictim(g, victim)
		e.drop(victim)
	}
	if e.tree.Idle(g.typ) < g.milli {
		return false
	}
	e.put(g)
	return true
}

// victim is the smallest gang that can be taken back, of equal ones the last.
func (e *estate) victim(g *gang) *gang {
	var best *gang
	for _, r := range e.runs {
		if r.typ == g.typ && e.tree.MayClaim(g.q, r.q, g.typ, g.milli) && e.tree.Owed(g.q, r.q, g.typ) > 0 &&
			(best == nil || cmp.Compare(r.milli, best.milli) <= 0) {
			best = r
		}
	}
	return best
}

// checkVictim: single GPUs are taken from no queue that is within its quota,
// and where all gangs fit what is owed, CanReclaim says so too.
func (e *estate) checkVictim(g, victim *gang) {
	owed := e.tree.Owed(g.q, victim.q, g.typ)
	if can := e.tree.CanReclaim(g.q, victim.q, g.typ, victim.milli); can != (owed >= victim.milli && e.tree.MayClaim(g.q, victim.q, g.typ, victim.milli)) {
		e.t.Fatalf("CanReclaim %v, owed %d of %d", can, owed, victim.milli)
	}
	for x := victim.q; x != nil && x != meet(g.q, victim.q); x = x.Parent() {
		quota, _ := e.tree.Quota(x, g.typ)
		if held := e.tree.Used(x, g.typ); held <= quota {
			e.t.Fatalf("%s has %d of its quota of %d, and yet a gang of %d is taken from it for %s", x, held, quota, victim.milli, g.q)
		} else if owed >= victim.milli && held-victim.milli < quota {
			e.t.Fatalf("%s keeps %d of its quota of %d although its gang of %d was owed (%d)", x, held-victim.milli, quota, victim.milli, owed)
		}
	}
}

// TestSharingSafety: whatever is borrowed, a gang that fits in what its queue
// does not use of its quota is guaranteed, and starts; taking GPUs back for it
// leaves no queue below its quota but by the rest of a gang that had borrowed.
func TestSharingSafety(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t, false)
		e := &estate{t: t, p: p, tree: New(p)}
		for _, typ := range types {
			e.tree.SetCapacity(typ, 40)
		}
		gangs := rapid.Bool().Draw(t, "gangs")
		paths := []string{"elsewhere"}
		for _, q := range p.Queues {
			paths = append(paths, q.Path)
		}
		for range rapid.IntRange(1, 80).Draw(t, "arrivals") {
			if len(e.runs) > 0 && rapid.IntRange(0, 4).Draw(t, "ends") == 0 {
				e.drop(e.runs[rapid.IntRange(0, len(e.runs)-1).Draw(t, "which")])
			}
			g := &gang{q: e.tree.Queue(rapid.SampledFrom(paths).Draw(t, "queue")), typ: rapid.SampledFrom(types).Draw(t, "type"), milli: 1000}
			if gangs {
				g.milli *= rapid.Int64Range(1, 12).Draw(t, "gang")
			}
			quota, _ := e.tree.Quota(g.q, g.typ)
			fits := p.Queue(g.q.Path) != nil && len(p.Queue(g.q.Path).Quota) > 0 && e.tree.Used(g.q, g.typ)+g.milli <= quota
			if v := e.tree.Check(g.q, "ann", g.typ, g.milli); fits && (!v.Guaranteed || v.By != g.q) {
				t.Fatalf("%s has %d of its quota of %d, but %d more are not guaranteed", g.q, e.tree.Used(g.q, g.typ), quota, g.milli)
			}
			if started := e.start(g); fits && !started {
				t.Fatalf("%s waits for its own quota", g.q)
			}
		}
	})
}

// TestNoReclaimLoop: what was just taken back cannot be taken back in turn:
// each claim brings its branch no further than its quota.
func TestNoReclaimLoop(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t, false)
		e := &estate{t: t, p: p, tree: New(p)}
		for i := range rapid.IntRange(1, 12).Draw(t, "gangs") {
			q := e.tree.Queue(append([]string{"elsewhere"}, paths(p)...)[rapid.IntRange(0, len(p.Queues)).Draw(t, "queue")])
			e.put(&gang{q: q, typ: types[i%2], milli: 1000 * rapid.Int64Range(1, 20).Draw(t, "milli")})
		}
		for _, a := range e.runs {
			for _, b := range e.runs {
				if a.typ != b.typ || !e.tree.CanReclaim(a.q, b.q, a.typ, b.milli) {
					continue
				}
				e.tree.Give(b.q, "ann", b.typ, b.milli)
				e.tree.Take(a.q, "ann", b.typ, b.milli)
				if e.tree.CanReclaim(b.q, a.q, b.typ, b.milli) {
					t.Fatalf("%s took %d from %s, which can take it back", a.q, b.milli, b.q)
				}
				e.tree.Give(a.q, "ann", b.typ, b.milli)
				e.tree.Take(b.q, "ann", b.typ, b.milli)
			}
		}
	})
}

func paths(p *cluster.Policy) (out []string) {
	for _, q := range p.Queues {
		out = append(out, q.Path)
	}
	return out
}
