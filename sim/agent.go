package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Delays of an agent.
const (
	sayDelay    = 20 * time.Millisecond // from a change on the node to the report of it: several changes share one
	resendEvery = 5 * time.Second       // until the leader has taken a report in
	redialDelay = 2 * time.Second       // longest time from a lost stream to the next attempt
)

// agent is one node: the machine, the agent's process on it, and the journal on its disk.
type agent struct {
	w       *world
	i       int // its place among the agents
	is      *Machine
	id      cluster.NodeID
	images  int // how often the disk was new
	boots   int
	process uint64 // incarnation

	broken  map[int]bool // GPUs that do not work, by number
	powered bool         // the machine runs
	up      bool         // the agent's process runs
	cut     bool         // it cannot reach the servers

	procs   []*proc // the journal: all workers that the node knows, by key
	fence   reconcile.Fence
	desired *reconcile.Desired // nil until a leader has spoken to this process
	details []detail

	session   uint64 // number of the stream; messages of older ones are lost
	connected bool
	dialing   bool
	toLeadAt  cluster.Time // arrival of the last message each way: streams keep their order
	toAgentAt cluster.Time
	saying    bool
	watching  bool
	changes   uint64 // number of the newest change that is to be told
	heard     uint64 // newest that the leader has taken in
}

func newAgent(w *world, i int, is *Machine) *agent {
	a := &agent{w: w, i: i, is: is, powered: true, up: true, process: 1, broken: map[int]bool{}}
	a.rename()
	return a
}

// rename gives the node the identity of a new disk.
func (a *agent) rename() {
	a.images++
	a.id = cluster.NodeID(fmt.Sprintf("node-%d-%d", a.is.Number, a.images))
	a.w.byNode[a.id] = a
}

// dial opens a stream to the leader, and tries again until it is open.
func (a *agent) dial() {
	if !a.up || a.cut || a.connected || a.dialing {
		return
	}
	if !a.w.leader.up {
		a.redial(a.w.upTo(redialDelay))
		return
	}
	a.connected = true
	a.session++
	h := hello{node: describeNode(a), workers: a.statuses(), number: a.changes}
	session := a.session
	a.toLeader(session, func() { a.w.leader.connect(a, h) })
}

func (a *agent) redial(d time.Duration) {
	if a.dialing {
		return
	}
	a.dialing = true
	a.w.clock.after(d, func() { a.dialing = false; a.dial() })
}

// disconnect ends the stream, if there is one, and dials again if the agent can.
func (a *agent) disconnect() {
	if !a.connected {
		return
	}
	a.connected = false
	a.session++
	a.w.leader.conns[a.i] = conn{}
	a.w.leader.pulses[a.id] = a.w.leader.own()
	if a.up && !a.cut {
		a.redial(a.w.upTo(redialDelay))
	}
}

// toLeader sends a message on a stream: it arrives in order, or never if the stream ends before.
func (a *agent) toLeader(session uint64, arrive func()) {
	a.toLeadAt = max(a.toLeadAt, a.w.clock.now.Add(a.w.upTo(messageDelay)))
	a.w.clock.at(a.toLeadAt, func() {
		if a.session == session {
			arrive()
		}
	})
}

func (a *agent) toAgent(session uint64, arrive func()) {
	a.toAgentAt = max(a.toAgentAt, a.w.clock.now.Add(a.w.upTo(messageDelay)))
	a.w.clock.at(a.toAgentAt, func() {
		if a.session == session {
			arrive()
		}
	})
}

// obey takes an order, unless it has obeyed a newer one.
func (a *agent) obey(o order) {
	if !a.up || a.fence.Admits(o.fence) != nil {
		return
	}
	a.fence = o.fence
	a.desired, a.details = &o.desired, o.details
	a.heard = max(a.heard, o.heard)
	a.reconcile()
	for i := range o.desired.Assignments {
		as := &o.desired.Assignments[i]
		if g := a.w.machine.gangs[gangKey{as.Job, as.Epoch}]; g != nil {
			g.form(&o.details[i])
		}
	}
}

// reconcile does what reconcile.Diff says, and forgets ends that nobody will ask for again.
func (a *agent) reconcile() {
	if !a.up || a.desired == nil {
		return
	}
	known := make([]reconcile.Worker, 0, len(a.procs))
	for _, p := range a.procs {
		known = append(known, reconcile.Worker{Key: p.key, GPUs: p.gpus, Milli: p.milli, Alive: p.alive(), Acknowledged: p.acked, Stopping: p.stopping})
		if a.w.greedy {
			known[len(known)-1].GPUs = nil
		}
	}
	for _, act := range reconcile.Diff(a.desired, known) {
		switch act.Kind {
		case reconcile.Launch:
			a.launch(act)
		case reconcile.Halt:
			a.proc(act.Key).halt(act.Stop)
		case reconcile.Decline:
			a.add(&proc{agent: a, key: act.Key, phase: ended, stopped: true, end: cluster.WorkerExited, signal: sigTerm})
			a.changed()
		case reconcile.Acknowledge:
			a.proc(act.Key).acked = true
		}
	}
	listed := a.desired.Listed()
	a.procs = slices.DeleteFunc(a.procs, func(p *proc) bool {
		_, wanted := slices.BinarySearchFunc(listed, p.key, reconcile.Key.Compare)
		return p.acked && !wanted
	})
}

// launch starts a worker.
func (a *agent) launch(act reconcile.Action) {
	key := act.Key
	i := slices.IndexFunc(a.desired.Assignments, func(as reconcile.Assignment) bool { return as.Job == key.Job && as.Epoch == key.Epoch })
	p := &proc{agent: a, key: key, gpus: act.GPUs, milli: act.Milli, phase: launching}
	a.add(p)
	a.w.fail(a.w.machine.launch(p))
	p.gang = a.w.gangOf(key, a.details[i])
	p.gang.procs = append(p.gang.procs, p)
	p.stubborn = a.w.happens(stubborn)
	a.w.clock.after(a.w.upTo(time.Duration(a.w.set.StartDelay)), p.start)
}

func (a *agent) find(key reconcile.Key) (int, bool) {
	return slices.BinarySearchFunc(a.procs, key, func(p *proc, k reconcile.Key) int { return p.key.Compare(k) })
}

func (a *agent) proc(key reconcile.Key) *proc {
	i, _ := a.find(key)
	return a.procs[i]
}

func (a *agent) add(p *proc) {
	i, _ := a.find(p.key)
	a.procs = slices.Insert(a.procs, i, p)
}

// statuses lists the workers that have started or ended, and are not acknowledged.
func (a *agent) statuses() []control.WorkerStatus {
	var out []control.WorkerStatus
	for _, p := range a.procs {
		if p.phase == launching || p.acked {
			continue
		}
		st := control.WorkerStatus{Key: keyFor(p.key), State: cluster.WorkerRunning, GPUs: p.gpus}
		st.Arrived = p.phase == running // where its peers meet
		if p.phase == ended {
			st.State, st.ExitCode, st.Signal, st.PeerLost, st.Stopped = p.end, p.code, p.signal, p.peerLost, p.stopped
		}
		if p.step > 0 {
			st.Checkpoint = &cluster.Checkpoint{Step: p.step, Path: "/checkpoints", Bytes: 1 << 30}
		}
		out = append(out, st)
	}
	return out
}

// changed tells the leader soon that something is new on the node.
func (a *agent) changed() {
	a.changes++
	a.sayIn(sayDelay)
}

func (a *agent) sayIn(d time.Duration) {
	if a.saying {
		return
	}
	a.saying = true
	a.w.clock.after(d, func() { a.saying = false; a.say() })
}

// say sends the full list, and again until it was heard and all ends are acknowledged.
func (a *agent) say() {
	if !a.up || !a.connected {
		return // the next hello says it all
	}
	list, number, session := a.statuses(), a.changes, a.session
	if a.w.happens(reportLost) {
		a.w.faults.ReportsLost++
	} else {
		a.toLeader(session, func() { a.w.leader.report(a, list, number) })
	}
	if a.watching {
		return
	}
	a.watching = true
	a.w.clock.after(resendEvery, func() {
		a.watching = false
		if a.heard < a.changes || slices.ContainsFunc(a.procs, func(p *proc) bool { return p.phase == ended && !p.acked }) {
			a.sayIn(sayDelay)
		}
	})
}

// describeNode is what the agent says of its node.
func describeNode(a *agent) cluster.Node {
	m := a.is
	name := m.name()
	n := cluster.Node{
		ID: a.id, Name: name, Address: name + ":7401", Host: name,
		BootID: fmt.Sprintf("boot-%d", a.boots), Incarnation: a.process, Version: "sim",
		CPUMilli: int64(m.GPUs) * cpuPerGPU, MemBytes: int64(m.GPUs) * memPerGPU, Labels: m.labels(),
	}
	for g := range m.GPUs {
		gpu := cluster.GPU{UUID: fmt.Sprintf("GPU-%d-%d", m.Number, g), Type: m.Type, MemBytes: 80 << 30, Healthy: !a.broken[g], Island: int32(g / m.island())} //nolint:gosec // at most 16
		if !gpu.Healthy {
			gpu.Reason = "it has fallen off the bus"
		}
		n.GPUs = append(n.GPUs, gpu)
	}
	return n
}
