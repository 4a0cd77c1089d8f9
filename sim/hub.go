package sim

import (
	"time"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// This file is the leader's side of the agents' streams: when to look. What to say and what to write to the log is
// decided by control, as in scheduler/api.

// hello is the first message of an agent's stream.
type hello struct {
	node    cluster.Node
	workers []control.WorkerStatus
	number  uint64 // of the agent's last report, which this list replaces
}

// order is all that should run on a node.
type order struct {
	fence   reconcile.Fence
	desired reconcile.Desired
	details []detail // of desired.Assignments, one each
	heard   uint64   // the agent's last report that the leader has taken in
}

// detail is what a worker is told beyond what reconcile needs.
type detail struct {
	formation int32
	members   []cluster.Rank // who makes up the ring
	resume    int64          // step to resume from
}

// connect opens an agent's stream.
func (l *leader) connect(a *agent, h hello) {
	l.conns[a.i] = conn{up: true, node: h.node, reported: h.workers, number: h.number}
	l.register(a)
}

// register makes a node known if it is not, or ends its stream if that is refused. Then it takes in what was reported.
func (l *leader) register(a *agent) {
	c := &l.conns[a.i]
	running := control.Running(c.reported)
	if !control.NeedsRegistration(l.w.servers.state(), &c.node, running) {
		c.registered = true
		l.tell(a)
		return
	}
	session := a.session
	c.registered = false
	l.propose(&proposal{
		cmds: []cluster.Command{&cluster.RegisterNode{Node: c.node, Running: running}},
		done: func(o outcome, rs []cluster.Result) {
			if a.session != session {
				return
			}
			if o != committed || rs[0].Code != cluster.OK {
				a.disconnect()
				a.redial(a.w.upTo(redialDelay))
				return
			}
			c.registered = true
			l.tell(a)
		},
	})
}

// report takes an agent's full list of workers.
func (l *leader) report(a *agent, workers []control.WorkerStatus, number uint64) {
	c := &l.conns[a.i]
	if !l.up || !c.up {
		return
	}
	c.reported, c.number = workers, number
	if c.registered { // else it is told right after
		l.tell(a)
	}
}

// tell proposes what the state does not know yet of an agent's workers.
func (l *leader) tell(a *agent) {
	c := &l.conns[a.i]
	cmds := control.News(l.w.servers.state(), a.id, c.reported, nil)
	session, number := a.session, c.number
	taken := func() {
		c.heard = max(c.heard, number)
		l.due(a)
	}
	if len(cmds) == 0 {
		taken()
		return
	}
	l.propose(&proposal{cmds: cmds, done: func(o outcome, _ []cluster.Result) {
		if o == committed && a.session == session {
			taken()
		}
	}})
	if l.w.happens(reportRepeated) {
		l.w.faults.ReportsRepeated++
		l.w.clock.after(l.w.upTo(time.Duration(l.w.set.RepeatDelay)), func() { l.propose(&proposal{cmds: cmds}) })
	}
}

// changed notes whom a change concerns.
func (l *leader) changed(ch cluster.Change) {
	if ch.Node != "" {
		l.dueAt(ch.Node)
	}
	j := l.w.servers.state().Job(ch.Job)
	key := control.OrderKeyOf(j)
	if l.keys[ch.Job] == key {
		return
	}
	if l.keys[ch.Job] = key; key == (control.OrderKey{}) {
		delete(l.keys, ch.Job)
	}
	if j != nil {
		for _, n := range j.NodeRanks {
			l.dueAt(n)
		}
	}
}

// dueAt makes known a node that the state thinks lost although its stream lives: it was declared lost before it came
// back, and the command was committed after. Else it sends the node an order.
func (l *leader) dueAt(id cluster.NodeID) {
	a := l.w.byNode[id]
	if a == nil || a.id != id {
		return
	}
	if c := &l.conns[a.i]; c.registered && control.Unregistered(l.w.servers.state(), id, c.node.Incarnation) {
		l.register(a)
		return
	}
	l.due(a)
}

// due sends an agent a new order soon: all that should run on its node by then.
func (l *leader) due(a *agent) {
	c := &l.conns[a.i]
	if !l.up || !c.registered || c.orderDue {
		return
	}
	c.orderDue = true
	session := a.session
	l.w.clock.after(decideDelay, func() {
		if a.session != session {
			return
		}
		c.orderDue = false
		said, ok := control.OrderFor(l.w.servers.state(), a.id, c.reported)
		if !ok {
			return
		}
		o := orderOf(&said)
		o.fence, o.heard = reconcile.Fence{Term: l.term, Index: l.w.servers.state().Index()}, c.heard
		a.toAgent(session, func() { a.obey(o) })
		if l.w.happens(orderRepeated) {
			l.w.faults.OrdersRepeated++
			id := a.id
			l.w.clock.after(l.w.upTo(time.Duration(l.w.set.RepeatDelay)), func() {
				if a.id == id {
					a.obey(o)
				}
			})
		}
	})
}

// orderOf is an order in the words of nodeagent, as protobuf carries it between the two.
func orderOf(in *control.Order) order {
	var o order
	for i := range in.Assignments {
		a := &in.Assignments[i]
		as := reconcile.Assignment{Job: uint64(a.Job.ID), Epoch: uint64(a.Job.Epoch)}
		for _, w := range a.Workers {
			as.Workers = append(as.Workers, reconcile.Slot{Rank: int(w.Rank), GPUs: w.GPUs, Milli: int(w.Milli)})
		}
		if a.Stop != nil {
			as.Stop = &reconcile.Stop{Why: a.Stop.Reason, Warn: a.Stop.Warn, Grace: a.Stop.Grace}
		}
		d := detail{formation: a.Job.Formation(), members: a.Members}
		if a.Resume != nil {
			d.resume = a.Resume.Step
		}
		o.desired.Assignments = append(o.desired.Assignments, as)
		o.details = append(o.details, d)
	}
	for _, k := range in.Acknowledged {
		o.desired.Acknowledged = append(o.desired.Acknowledged, reconcile.Key{Job: uint64(k.Job), Epoch: uint64(k.Epoch), Rank: int(k.Rank)})
	}
	return o
}

// keyFor is a worker's key in the words of scheduler.
func keyFor(k reconcile.Key) control.WorkerKey {
	return control.WorkerKey{Job: cluster.JobID(k.Job), Epoch: cluster.Epoch(k.Epoch), Rank: cluster.Rank(k.Rank)}
}
