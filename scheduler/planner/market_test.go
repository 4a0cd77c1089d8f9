package planner

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gangline/gangline/scheduler/cluster"
)

// TestMarketRemembersRightly: what a market takes from the one before is what it
// would find out, and what spares it a look at all candidates, or at all who
// wait, is what those looks would say.
func TestMarketRemembersRightly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, nil)
		gpus := w.drawNodes(t)
		w.try(&cluster.SetPolicy{Policy: drawPolicy(t, gpus), Any: true})
		for range rapid.IntRange(5, 30).Draw(t, "rounds") {
			w.happen(t, gpus)
			w.pass(time.Duration(rapid.SampledFrom([]int{0, 1, 60, 600, 40_000}).Draw(t, "pass")) * time.Second)
			p := w.plan(rapid.Bool().Draw(t, "thorough"))
			w.enact(&p)
			w.plan(false) // follows
			x := w.x
			mark := x.fleet.Mark()
			m := x.openMarket()
			m.round = rapid.Bool().Draw(t, "round")
			m.listsClaimers(w)
			m.idles(w)
			w.remembers(m)
			for e := range x.jobs.entries() {
				if e.lane != nil {
					m.spares(w, e)
					m.findsCheapest(w, e)
				}
			}
			m.close()
			x.fleet.Undo(mark)
			w.idles(t)
			w.saysStill()
			w.losesNone()
		}
	})
}

// idles lets the market begin, and fails if one that is idle stops somebody.
func (m *market) idles(w *world) {
	idle := m.claimers() && m.idle()
	m.begin()
	if !idle {
		return
	}
	mark := m.x.fleet.Mark()
	var plan Plan
	if m.claimEach(maxClaims, &plan); len(plan.Evicts) > 0 {
		w.t.Fatalf("the market is idle, and stops job %d for job %d", plan.Evicts[0].Job, plan.Evicts[0].For)
	}
	m.x.fleet.Undo(mark)
}

// remembers fails unless what is known of those who run is what would be if nothing
// were known of them from before.
func (w *world) remembers(m *market) {
	x, i := m.x, 0
	x.state.EachHolding(func(j *cluster.Job) bool {
		if r := x.jobs.run(j.ID); r != nil {
			want := run{job: j, on: r.on, gpuType: r.gpuType, milli: r.milli, shape: r.shape, group: r.group, place: r.place}
			x.renew(&want)
			want.due, want.by, want.search = r.due, r.by, r.search
			if at := x.standingOf(j); !r.out && (r.key != at.key || int64(r.level) != at.level) {
				w.t.Fatalf("job %d stands at %+v, want %+v", j.ID, *r, at)
			}
			if *r != want {
				w.t.Fatalf("of job %d is known %+v, want %+v", j.ID, *r, want)
			}
			i++
		}
		return true
	})
	if i != m.runs {
		w.t.Fatalf("%d jobs hold GPUs, want %d", m.runs, i)
	}
	for _, g := range x.running {
		is, want := g.roster, g.roster
		x.survey(&want, false)
		if is.some != want.some || is.lowest != want.lowest || is.worst != want.worst || is.due != want.due || is.passed != want.passed {
			w.t.Fatalf("of those of %s in %s is known %+v, want %+v", g.user, g.q, is, want)
		}
	}
}

// findsCheapest fails unless a search that is spared what cannot do finds whom one finds that looks at all nodes and
// all who hold GPUs there.
func (m *market) findsCheapest(w *world, e *entry) {
	for _, t := range m.x.typesOf(e.lane.shape) {
		got := ids(m.cheapest(e, t))
		var best offer
		var offers []offer
		m.listed = false
		m.list()
		m.x.searches++
		m.x.fleet.EachNode(t, func(n *cluster.Node, free, alive int32) bool {
			o := m.offerAt(e, n.ID, m.holders(n.ID), t, free, alive)
			if !m.better(&best, o, e.lane.shape.Least) && best.gpus == 0 && o.gpus > 0 {
				o.victims = slices.Clone(o.victims)
				offers = append(offers, o)
			}
			return true
		})
		want := best.victims
		if best.gpus == 0 {
			want = gather(offers, e.lane.shape.Least)
		}
		if !slices.Equal(got, ids(want)) {
			w.t.Fatalf("for job %d jobs %v are found, want %v", e.job.ID, got, ids(want))
		}
	}
}

func ids(of []*run) (ids []cluster.JobID) {
	for _, c := range of {
		ids = append(ids, c.job.ID)
	}
	return ids
}

// spares fails if a claimer is spared a search that would find somebody, or one behind it is.
func (m *market) spares(w *world, e *entry) {
	if m.noneLater(e) {
		for r := range m.x.jobs.runs() {
			if by := m.mayStop(e, r); by != rightNone {
				w.t.Fatalf("job %d may stop job %d by %d, and is told that there is nobody", e.job.ID, r.job.ID, by)
			}
		}
	}
	if e != e.lane.jobs.top() || !m.noneBehind(e) {
		return
	}
	for o := range m.x.jobs.entries() {
		if o.lane != nil && (o.lane == e.lane && e.before(o) || o.lane != e.lane && o == o.lane.jobs.top() && !o.lane.before(e.lane)) && !m.hopeless(o) {
			w.t.Fatalf("job %d behind job %d may hope, and is told that it may not", o.job.ID, e.job.ID)
		}
	}
}
