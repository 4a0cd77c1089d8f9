package sim

import (
	"math/rand/v2"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// admins set policies and drain nodes. Each asks until there is an answer.
type admins struct {
	w        *world
	rng      *rand.Rand
	policies int
	drains   int
}

// begin sets the first policy, then lets the clients in.
func (a *admins) begin(then func()) {
	if !a.w.cfg.Varied {
		then()
		return
	}
	a.set(drawPolicy(a.w.cfg, a.w.clock.now, a.rng), then)
	if !a.w.cfg.Faults {
		return
	}
	a.w.strike(a.w.cfg.Rates.Drains*float64(len(a.w.agents)), a.drain)
	if a.w.cfg.Seed%2 == 0 { // the others keep theirs to the end, so that all jobs end under it
		a.w.strike(a.w.cfg.Rates.PolicyChanges, func() { a.set(drawPolicy(a.w.cfg, a.w.clock.now, a.rng), nil) })
	}
}

// set replaces the policy.
func (a *admins) set(p *cluster.Policy, then func()) {
	a.policies++
	a.ask(&cluster.SetPolicy{Policy: p, By: "sim", Any: true}, then)
}

// ask proposes a command until it is committed.
func (a *admins) ask(c cluster.Command, then func()) {
	a.w.clients.open++
	a.w.leader.propose(&proposal{cmds: []cluster.Command{c}, done: func(o outcome, _ []cluster.Result) {
		a.w.clients.open--
		if o == unknown {
			a.w.clients.open++
			a.w.clock.after(a.w.upTo(retryDelay), func() {
				a.w.clients.open--
				a.ask(c, then)
			})
			return
		}
		if then != nil {
			then()
		}
	}})
}

// drain empties a node for a while.
func (a *admins) drain() {
	g := a.w.anyAgent()
	a.drains++
	d := &cluster.DrainNode{Node: g.id, Reason: "fan", By: "sim"}
	if a.rng.IntN(3) > 0 {
		d.Deadline = a.w.clock.now.Add(time.Duration(a.rng.Int64N(int64(10*time.Minute))) + 1)
	}
	a.ask(d, nil)
	a.w.clock.after(a.w.upTo(30*time.Minute), func() { a.ask(&cluster.DrainNode{Node: g.id, Off: true}, nil) })
}

// becomeCalm ends all drains. Where policies came and went some job may never start under the last one: the default lets all.
func (a *admins) becomeCalm() {
	if !a.w.cfg.Varied {
		return
	}
	a.w.servers.state().EachNode(func(n *cluster.Node) bool {
		if n.Drain != nil {
			a.ask(&cluster.DrainNode{Node: n.ID, Off: true}, nil)
		}
		return true
	})
	if a.policies > 1 {
		a.set(cluster.DefaultPolicy(), nil)
	}
}
