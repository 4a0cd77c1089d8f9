package sim

import (
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Delays of the servers. Virtual, so only their order matters.
const (
	commitDelay   = 10 * time.Millisecond // longest time from a proposal to its commit
	messageDelay  = 20 * time.Millisecond // longest way of a message
	decideDelay   = time.Millisecond      // from a change to the next look at the state
	electionDelay = 3 * time.Second       // longest time without a leader
	idleTick      = time.Minute           // longest time between two looks while a job is unfinished
)

// outcome is what a proposer learns.
type outcome int

const (
	committed outcome = iota + 1
	unknown           // the leader went away: it may have been committed or not
)

// proposal is commands on their way into the log.
type proposal struct {
	cmds []cluster.Command
	done func(outcome, []cluster.Result) // may be nil
	base uint64                          // index of the state that a plan was made on; 0: not a plan
}

// conn is the leader's side of an agent's stream.
type conn struct {
	up         bool
	registered bool
	node       cluster.Node // as the agent introduced it
	reported   []control.WorkerStatus
	number     uint64 // of that report
	heard      uint64 // number of the last report taken in
	orderDue   bool
}

// leader is the server that leads: it proposes, decides, and talks with the agents. It stands for scheduler's leader
// loop and scheduler/api's hub, and decides nothing of its own: control does.
type leader struct {
	w        *world
	term     uint64
	up       bool
	skew     time.Duration   // of its server's own clock: another one each time, as if it had been set
	clocks   []control.Clock // by server
	queue    []*proposal
	commitAt cluster.Time
	conns    []conn
	keys     map[cluster.JobID]control.OrderKey
	pulses   map[cluster.NodeID]cluster.Time // when a node without a stream was last heard
	deciding bool                            // its own commands are on their way
	lookAt   cluster.Time                    // next planned look at the state; 0: none
	stepper  *control.Stepper                // of this leader; the next one begins anew
}

func newLeader(w *world) *leader {
	return &leader{w: w, clocks: make([]control.Clock, w.set.Servers), conns: make([]conn, len(w.agents)), pulses: map[cluster.NodeID]cluster.Time{}}
}

// rise makes a server the leader, whose clock is wrong by skew. All leases begin anew: nothing is known of the nodes.
func (l *leader) rise(server int, skew time.Duration) {
	l.skew = skew
	l.w.fail(l.w.servers.elect(server))
	l.term++
	l.up = true
	l.pulses = map[cluster.NodeID]cluster.Time{}
	l.stepper = control.NewStepper(l.w.set.control())
	l.keys = map[cluster.JobID]control.OrderKey{}
	l.w.servers.state().EachHolding(func(j *cluster.Job) bool {
		l.keys[j.ID] = control.OrderKeyOf(j)
		return true
	})
	if l.w.servers.state().Version() == 0 {
		l.propose(&proposal{cmds: []cluster.Command{&cluster.Init{ClusterID: "sim", Version: cluster.Version}}})
	}
	l.lookAt = 0
	l.look(0)
}

// fall takes leadership away. Of what is on its way, a beginning is committed, though nobody is told; the rest is lost.
// Then another server, or the same one, rises.
func (l *leader) fall(h *Happening) {
	if !l.up {
		return
	}
	w := l.w
	w.note("the leader is gone", nil, -1)
	keep := min(int(h.Keep*float64(len(l.queue)+1)), len(l.queue))
	queue := l.queue
	l.queue, l.up, l.deciding = nil, false, false
	for _, p := range queue[:keep] {
		if _, err := w.commit(l.clock(), p.cmds); err != nil {
			w.fail(err)
			return
		}
	}
	for _, a := range w.agents {
		a.disconnect()
	}
	for _, p := range queue {
		if p.done != nil {
			p.done(unknown, nil)
		}
	}
	w.clock.after(time.Duration(h.For), func() { l.rise(h.Server%len(w.servers.all), time.Duration(h.Skew)) })
}

// own is the time by the leading server's own clock.
func (l *leader) own() cluster.Time { return l.w.clock.now.Add(l.skew) }

// clock is the time by which the leader stamps and decides.
func (l *leader) clock() cluster.Time {
	c := &l.clocks[l.w.servers.leader]
	now, next := c.Read(l.own(), l.w.clock.elapsed(), l.w.servers.state().Now())
	*c = next
	return now
}

// propose puts commands on their way. Proposals are committed in order, each as one entry.
func (l *leader) propose(p *proposal) {
	w := l.w
	if !l.up {
		if p.done != nil {
			w.clock.after(messageDelay, func() { p.done(unknown, nil) })
		}
		return
	}
	l.queue = append(l.queue, p)
	l.commitAt = max(l.commitAt, w.clock.now.Add(w.upTo(commitDelay)))
	term := l.term
	w.clock.at(l.commitAt, func() {
		if l.up && l.term == term {
			l.commitFirst()
		}
	})
}

func (l *leader) commitFirst() {
	w := l.w
	p := l.queue[0]
	l.queue = l.queue[1:]
	cmds := p.cmds
	if w.tamper != nil {
		cmds = tampered(w.tamper, cmds)
	}
	undisturbed := p.base != 0 && p.base == w.servers.state().Index()
	results, err := w.commit(l.clock(), cmds)
	if err == nil && undisturbed {
		err = checkPlan(cmds, results)
	}
	if err != nil {
		w.fail(err)
		return
	}
	for len(results) < len(p.cmds) { // only if a test dropped some
		results = append(results, cluster.Result{})
	}
	if p.done != nil {
		p.done(committed, results)
	}
	l.look(decideDelay)
}

func tampered(tamper func(cluster.Command) cluster.Command, cmds []cluster.Command) []cluster.Command {
	var out []cluster.Command
	for _, c := range cmds {
		if c = tamper(c); c != nil {
			out = append(out, c)
		}
	}
	return out
}

// checkPlan holds control.Step to its word: commands made on the very state that they meet are neither refused nor idle.
func checkPlan(cmds []cluster.Command, results []cluster.Result) error {
	changes := 0
	for i, r := range results {
		if r.Code != cluster.OK {
			return fmt.Errorf("control.Step proposed what its own state refuses: %s: %s", describe(cmds[i]), r.Message)
		}
		changes += len(r.Changes)
	}
	if changes == 0 {
		return fmt.Errorf("control.Step proposed %d commands, the first of them %s, and none changed anything: it would do so for ever",
			len(cmds), describe(cmds[0]))
	}
	return nil
}

// look plans a look at the state, unless one comes sooner.
func (l *leader) look(d time.Duration) { l.lookBy(l.w.clock.now.Add(d)) }

func (l *leader) lookBy(t cluster.Time) {
	if l.lookAt != 0 && l.lookAt <= t {
		return
	}
	l.lookAt = t
	term := l.term
	l.w.clock.at(t, func() {
		if l.up && l.term == term && l.lookAt == t {
			l.lookAt = 0
			l.decide()
		}
	})
}

// decide asks control.Step once, as the servers' loop does: on committed state only, and one proposal at a time.
func (l *leader) decide() {
	s := l.w.servers.state()
	if l.deciding || s.Version() == 0 {
		return
	}
	now := l.clock()
	leases := l.leases().Shift(s, now.Sub(l.own()))
	cmds, next := l.stepper.Step(s, leases, now)
	if len(cmds) == 0 {
		l.look(l.deadline(s, leases, now, next).Sub(now))
		return
	}
	l.deciding = true
	l.propose(&proposal{cmds: cmds, base: s.Index(), done: func(outcome, []cluster.Result) { l.deciding = false }})
}

// leases says until when each node is believed alive, by the server's own clock. A node with a stream sends a heartbeat each second; here, its
// lease is simply full.
func (l *leader) leases() control.Leases {
	out := control.Leases{}
	l.w.servers.state().EachNode(func(n *cluster.Node) bool {
		heard := l.own()
		if a := l.w.byNode[n.ID]; a == nil || a.id != n.ID || !l.conns[a.i].up {
			if _, known := l.pulses[n.ID]; !known {
				l.pulses[n.ID] = heard
			}
			heard = l.pulses[n.ID]
		}
		out[n.ID] = heard.Add(time.Duration(l.w.set.Lease))
		return true
	})
	return out
}

// deadline is when Step may decide something else although nothing has changed. The servers look four times a
// second instead; here that would be most of the work.
func (l *leader) deadline(s *cluster.State, leases control.Leases, now, stepper cluster.Time) cluster.Time {
	next := now.Add(time.Hour)
	soon := func(t cluster.Time) {
		if t > now && t < next {
			next = t
		}
	}
	soon(stepper)
	s.EachNode(func(n *cluster.Node) bool {
		if n.State == cluster.NodeReady {
			soon(leases[n.ID])
		}
		return true
	})
	return max(next, now.Add(decideDelay))
}
