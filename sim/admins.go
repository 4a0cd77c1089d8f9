package sim

import (
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// admins set policies and drain nodes. Each asks until there is an answer.
type admins struct {
	w        *world
	policies int
}

// begin sets the first policy, then lets the clients in.
func (a *admins) begin(first *cluster.Policy, then func()) {
	if first == nil {
		then()
		return
	}
	a.set(first, then)
}

// set replaces the policy.
func (a *admins) set(p *cluster.Policy, then func()) {
	if a.policies++; a.policies > 1 {
		a.w.faults.PolicyChanges++
	}
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
func (a *admins) drain(g *agent, h *Happening) {
	a.w.faults.Drains++
	d := &cluster.DrainNode{Node: g.id, Reason: "fan", By: "sim"}
	if h.Deadline > 0 {
		d.Deadline = a.w.clock.now.Add(time.Duration(h.Deadline))
	}
	a.ask(d, nil)
	a.w.clock.after(time.Duration(h.For), func() { a.ask(&cluster.DrainNode{Node: g.id, Off: true}, nil) })
}

// becomeCalm ends all drains. Where policies came and went some job may never start under the last one: the default lets all.
func (a *admins) becomeCalm() {
	a.w.servers.state().EachNode(func(n *cluster.Node) bool {
		if n.Drain != nil {
			a.ask(&cluster.DrainNode{Node: n.ID, Off: true}, nil)
		}
		return true
	})
	if a.policies > 1 {
		a.ask(&cluster.SetPolicy{Policy: cluster.DefaultPolicy(), By: "sim", Any: true}, nil)
	}
}
