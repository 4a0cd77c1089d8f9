package replay

import (
	"fmt"
	"slices"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// machine is one node: the computer, its agent, and the journal of its workers.
type machine struct {
	r     *reality
	index int32
	rack  int          // of reality.racks; -1: none
	node  cluster.Node // as its agent introduces it
	boots int
	// workers are those that run, and those whose end the leader does not know.
	workers []*worker

	downUntil cluster.Time   // dead; 0: it runs
	awayUntil cluster.Time   // its agent; 0: it is there
	sickUntil []cluster.Time // by GPU; 0: well
	heard     cluster.Time   // last, if it is silent
	lost      bool           // in the state
	behind    bool           // its agent has not got an order
	saying    bool           // a report is on its way
	billed    cluster.Time   // until when its time out of use is counted
}

func newMachine(r *reality, n cluster.Node, i int) *machine {
	return &machine{r: r, index: int32(i), rack: -1, node: n, sickUntil: make([]cluster.Time, len(n.GPUs)), billed: r.w.now} //nolint:gosec // at most cluster.MaxNodes
}

// heardOf reports whether the leader and the machine's agent have a connection.
func (m *machine) heardOf() bool { return m.r.leading && m.present() }

// present reports whether the agent runs and reaches the servers.
func (m *machine) present() bool { return m.downUntil == 0 && m.awayUntil == 0 }

// room reports whether a worker's GPUs have room for it: a process that the state has given up may still use them.
func (m *machine) room(wk *worker) bool {
	for _, uuid := range wk.gpus {
		if m.r.holders[uuid]+wk.gang.job.milli > cluster.WholeGPU {
			return false
		}
	}
	return true
}

// launch begins to start a worker's process.
func (m *machine) launch(wk *worker) {
	wk.state = starting
	m.workers = append(m.workers, wk)
	for _, uuid := range wk.gpus {
		m.r.holders[uuid] += wk.gang.job.milli
		if m.r.holders[uuid] > cluster.WholeGPU {
			m.r.breakRule("GPU %s is used by worker %s and by others at once", uuid, wk.key())
		}
	}
}

// ended is the end of a worker's process. The journal knows; the leader will, once it is told.
func (m *machine) ended(wk *worker, st cluster.WorkerState, code, signal int32, peerLost bool) {
	if wk.alive() {
		for _, uuid := range wk.gpus {
			if m.r.holders[uuid] -= wk.gang.job.milli; m.r.holders[uuid] <= 0 {
				delete(m.r.holders, uuid)
			}
		}
	}
	wk.state, wk.end, wk.code, wk.signal, wk.peerLost = workerEnd, st, code, signal, peerLost
	m.changed()
}

// changed lets the agent report soon. What changes until then goes with it.
func (m *machine) changed() {
	if m.saying || !m.heardOf() {
		return // its next hello says it all
	}
	m.saying = true
	late := m.r.c.Late
	if late > 0 {
		late = late/10 + m.r.chance.upTo(late-late/10)
	}
	m.r.after(late, happening{what: reportComes, node: m.index})
}

// reportComes takes in a report, unless it gets lost: then the agent says all again.
func (r *reality) reportComes(m *machine) {
	m.saying = false
	switch {
	case !m.heardOf():
	case r.c.Lost > 0 && r.chance.reports.Float64() < r.c.Lost:
		r.failures.ReportsLost++
		m.saying = true
		r.after(r.c.Again, happening{what: reportComes, node: m.index})
	default:
		m.tell(m.statuses())
		m.catchUp()
	}
}

// statuses lists the workers that have started or ended, as their agent does. It is to be told at once.
func (m *machine) statuses() []control.WorkerStatus {
	out := make([]control.WorkerStatus, 0, len(m.workers))
	for _, wk := range m.workers {
		if wk.state == starting {
			continue
		}
		st := control.WorkerStatus{
			Key:   control.WorkerKey{Job: wk.gang.id, Epoch: wk.gang.epoch, Rank: wk.rank},
			State: cluster.WorkerRunning, GPUs: wk.gpus,
		}
		if wk.state == workerEnd {
			wk.told = true
			st.State, st.ExitCode, st.Signal, st.PeerLost, st.Stopped = wk.end, wk.code, wk.signal, wk.peerLost, wk.stop != nil
		}
		if wk.step > 0 {
			st.Checkpoint = &cluster.Checkpoint{Step: wk.step, Path: "replay"}
		}
		out = append(out, st)
	}
	return out
}

// tell lets the state know what the agent says. What it has taken in need not be told again.
func (m *machine) tell(said []control.WorkerStatus) {
	for _, c := range control.News(&m.r.w.state, m.node.ID, said, nil) {
		m.r.w.apply(c)
	}
	m.workers = slices.DeleteFunc(m.workers, func(wk *worker) bool { return wk.told })
}

// connect is an agent's first word to a leader: who it is and what runs, and then its orders if it may have missed some.
func (m *machine) connect() {
	r, s := m.r, &m.r.w.state
	r.silent = slices.DeleteFunc(r.silent, func(o *machine) bool { return o == m })
	said := m.statuses()
	if running := control.Running(said); control.NeedsRegistration(s, &m.node, running) {
		if res := r.w.apply(&cluster.RegisterNode{Node: m.node, Running: running}); res.Code != cluster.OK {
			r.breakRule("node %s cannot come back: %s", m.node.Name, res.Message)
		}
	}
	m.tell(said)
	m.catchUp()
}

// catchUp gives the agent the orders that it has missed, or could not follow yet.
func (m *machine) catchUp() {
	if m.behind {
		m.behind = false
		m.obey()
	}
}

// obey compares all that should run on the machine with what does.
func (m *machine) obey() {
	r := m.r
	o, ok := control.OrderFor(&r.w.state, m.node.ID, nil)
	if !ok {
		return
	}
	var want reconcile.Desired
	for i := range o.Assignments {
		a := &o.Assignments[i]
		as := reconcile.Assignment{Job: uint64(a.Job.ID), Epoch: uint64(a.Job.Epoch)}
		for _, w := range a.Workers {
			as.Workers = append(as.Workers, reconcile.Slot{Rank: int(w.Rank), GPUs: w.GPUs, Milli: int(w.Milli)})
		}
		if a.Stop != nil {
			as.Stop = &reconcile.Stop{Why: a.Stop.Reason, Warn: a.Stop.Warn, Grace: a.Stop.Grace}
		}
		want.Assignments = append(want.Assignments, as)
	}
	known := make([]reconcile.Worker, 0, len(m.workers))
	for _, wk := range m.workers {
		known = append(known, reconcile.Worker{Key: wk.key(), GPUs: wk.gpus, Milli: int(wk.gang.job.milli), Alive: wk.alive(), Stopping: wk.stop})
	}
	for _, act := range reconcile.Diff(&want, known) {
		switch act.Kind {
		case reconcile.Launch:
			wk := r.worker(act.Key)
			m.launch(wk)
			r.after(r.launchTime(wk.gang), happening{what: oneLaunched, one: wk})
		case reconcile.Halt:
			i := slices.IndexFunc(m.workers, func(wk *worker) bool { return wk.key() == act.Key })
			r.halt(m.workers[i].gang, m.workers[i:i+1], act.Stop)
		case reconcile.Decline:
			wk := r.worker(act.Key)
			r.halt(wk.gang, []*worker{wk}, act.Stop)
		case reconcile.Acknowledge:
		}
	}
	for i := range want.Assignments {
		for _, slot := range want.Assignments[i].Workers {
			wk := r.worker(reconcile.Key{Job: want.Assignments[i].Job, Rank: slot.Rank})
			m.behind = m.behind || wk.state == assigned // its GPUs are still in use
		}
	}
}

// worker finds a worker of a job's present epoch.
func (r *reality) worker(k reconcile.Key) *worker {
	g := r.work[cluster.JobID(k.Job)].gang
	return g.workers[k.Rank]
}

// dieUntil ends the machine with all that runs on it.
func (m *machine) dieUntil(t cluster.Time) {
	m.bill()
	if m.downUntil == 0 {
		m.silence()
	}
	m.downUntil = max(m.downUntil, t)
	m.r.after(m.downUntil.Sub(m.r.w.now), happening{what: nodeBack, node: m.index})
	for _, wk := range slices.Clone(m.workers) {
		if wk.alive() {
			m.ended(wk, cluster.WorkerLost, 0, 0, false)
			m.r.left(wk.gang)
		}
	}
}

// silence is when the agent is heard for the last time.
func (m *machine) silence() {
	if m.present() {
		m.heard = m.r.w.now
		m.r.silent = append(m.r.silent, m)
		m.behind = true // whatever it is told from now on
	}
}

// nodeBack boots the machine, unless it has died again meanwhile.
func (r *reality) nodeBack(m *machine) {
	if m.downUntil == 0 || r.w.now < m.downUntil {
		return
	}
	m.bill()
	m.downUntil = 0
	m.boots++
	m.node.BootID = fmt.Sprintf("boot-%d", m.boots)
	m.node.Incarnation++
	if m.heardOf() {
		m.connect()
	}
}

// agentBack starts the agent, or lets it reach the servers again.
func (r *reality) agentBack(m *machine) {
	if m.awayUntil == 0 || r.w.now < m.awayUntil {
		return
	}
	m.awayUntil = 0
	m.node.Incarnation++
	if m.heardOf() {
		m.connect()
	}
}

// bill counts the time of GPUs that are out of use, until now.
func (m *machine) bill() {
	out := 0
	for _, until := range m.sickUntil {
		if until != 0 || m.downUntil != 0 {
			out++
		}
	}
	m.r.failures.DownGPU += float64(float64(out) * m.r.w.now.Sub(m.billed).Seconds())
	m.billed = m.r.w.now
}
