package sim

import (
	"slices"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
)

// This file is the leader's side of the agents' streams. It follows scheduler/api (news.go and desired.go), which
// cannot be driven here because it speaks protobuf.

// status is what an agent says of one worker.
type status struct {
	key      reconcile.Key
	state    cluster.WorkerState // WorkerRunning, WorkerExited or WorkerLost
	code     int32
	signal   int32
	peerLost bool
	stopped  bool
	step     int64 // of its newest checkpoint, or 0
	gpus     []string
}

// hello is the first message of an agent's stream.
type hello struct {
	node    cluster.Node
	running []cluster.WorkerRef
	workers []status
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
	world  int
	resume int64 // step to resume from
}

// connect opens an agent's stream.
func (l *leader) connect(a *agent, h hello) {
	l.conns[a.i] = conn{up: true, node: h.node, reported: h.workers}
	l.register(a, h.running, func() { l.report(a, h.workers, h.number) })
}

// registerAgain makes known a node that the state thinks lost although its stream lives: it was declared lost before
// it came back, and the command was committed after.
func (l *leader) registerAgain(a *agent) {
	c := &l.conns[a.i]
	var running []cluster.WorkerRef
	for i := range c.reported {
		if u := &c.reported[i]; !u.state.Ended() {
			running = append(running, refOf(u.key, u.gpus))
		}
	}
	l.register(a, running, func() { l.due(a) })
}

func refOf(k reconcile.Key, gpus []string) cluster.WorkerRef {
	return cluster.WorkerRef{Job: cluster.JobID(k.Job), Epoch: cluster.Epoch(k.Epoch), Rank: cluster.Rank(k.Rank), GPUs: gpus}
}

// register makes a node known, or ends its stream if that is refused.
func (l *leader) register(a *agent, running []cluster.WorkerRef, then func()) {
	session := a.session
	l.conns[a.i].registered = false
	l.propose(&proposal{
		cmds: []cluster.Command{&cluster.RegisterNode{Node: l.conns[a.i].node, Running: running}},
		done: func(o outcome, rs []cluster.Result) {
			if a.session != session {
				return
			}
			if o != committed || rs[0].Code != cluster.OK {
				a.disconnect()
				a.redial(a.w.upTo(redialDelay))
				return
			}
			l.conns[a.i].registered = true
			then()
		},
	})
}

// report takes in an agent's full list of workers, and proposes what the state does not know yet.
func (l *leader) report(a *agent, workers []status, number uint64) {
	c := &l.conns[a.i]
	if !l.up || !c.up {
		return
	}
	c.reported = workers
	if !c.registered {
		return // the agent says it again
	}
	cmds := news(l.w.servers.state(), a.id, workers)
	session := a.session
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
	if l.w.happens(l.w.cfg.Rates.ReportRepeated) {
		l.w.faults.ReportsRepeated++
		l.w.clock.after(l.w.upTo(l.w.cfg.Rates.RepeatDelay), func() { l.propose(&proposal{cmds: cmds}) })
	}
}

// news compares an agent's list with the state and returns the commands that make the state say the same.
func news(s *cluster.State, id cluster.NodeID, workers []status) []cluster.Command {
	n := s.Node(id)
	if n == nil {
		return nil
	}
	var cmds []cluster.Command
	report := &cluster.ReportWorkers{Node: id}
	listed := map[reconcile.Key]bool{}
	for i := range workers {
		u := &workers[i]
		listed[u.key] = true
		w, j := workerOn(s, id, u.key)
		if w != nil && u.step > 0 && (j.Checkpoint == nil || j.Checkpoint.Epoch != j.Epoch || j.Checkpoint.Step < u.step) {
			cmds = append(cmds, &cluster.RecordCheckpoint{Job: j.ID, Epoch: j.Epoch, Step: u.step, Path: "/checkpoints", Bytes: 1 << 30})
		}
		stale := u.state.Ended() && isStale(n, u.key)
		if stale || (w != nil && !w.State.Ended() && u.state > w.State) {
			report.Workers = append(report.Workers, cluster.WorkerReport{
				Job: cluster.JobID(u.key.Job), Epoch: cluster.Epoch(u.key.Epoch), Rank: cluster.Rank(u.key.Rank),
				State: u.state, ExitCode: u.code, Signal: u.signal, PeerLost: u.peerLost, Stopped: u.stopped,
			})
		}
	}
	for _, j := range holdersOn(s, n) {
		for i := range j.Workers {
			w := &j.Workers[i]
			if w.Node == id && w.State == cluster.WorkerRunning && !listed[keyOf(j, w)] {
				report.Workers = append(report.Workers, cluster.WorkerReport{
					Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: cluster.WorkerLost, Message: "the node's agent no longer knows this worker",
				})
			}
		}
	}
	if len(report.Workers) > 0 {
		cmds = append(cmds, report)
	}
	return cmds
}

// orderFor is all that should run on an agent's node by the state, and which of the reported ends it has taken in.
func orderFor(w *world, a *agent, c *conn, fence reconcile.Fence) order {
	s := w.servers.state()
	o := order{fence: fence, heard: c.heard}
	n := s.Node(a.id)
	if n == nil {
		return o
	}
	for _, j := range holdersOn(s, n) {
		as := reconcile.Assignment{Job: uint64(j.ID), Epoch: uint64(j.Epoch), Stop: stopOf(j)}
		for i := range j.Workers {
			if wk := &j.Workers[i]; wk.Node == a.id && !wk.State.Ended() {
				as.Workers = append(as.Workers, reconcile.Slot{Rank: int(wk.Rank), GPUs: wk.GPUs})
			}
		}
		if len(as.Workers) == 0 {
			continue
		}
		d := detail{world: len(j.Workers)}
		if j.Checkpoint != nil {
			d.resume = j.Checkpoint.Step
		}
		o.desired.Assignments = append(o.desired.Assignments, as)
		o.details = append(o.details, d)
	}
	for i := range c.reported {
		if u := &c.reported[i]; u.state.Ended() && exitRecorded(s, n, u.key) {
			o.desired.Acknowledged = append(o.desired.Acknowledged, u.key)
		}
	}
	return o
}

// stopOf is how the workers of a stopping job end, or nil. Where a peer is gone there is nothing to warn of.
func stopOf(j *cluster.Job) *reconcile.Stop {
	if j.State != cluster.Stopping {
		return nil
	}
	stop := &reconcile.Stop{Why: j.StopReason, Warn: j.Spec.Warn, Grace: j.Spec.Grace}
	if j.Stop == cluster.StopFailure || j.Stop == cluster.StopNodeLost {
		stop.Warn = 0
	}
	return stop
}

func exitRecorded(s *cluster.State, n *cluster.Node, k reconcile.Key) bool {
	if isStale(n, k) {
		return false
	}
	j := s.Job(cluster.JobID(k.Job))
	switch {
	case j == nil, cluster.Epoch(k.Epoch) < j.Epoch:
		return true
	case cluster.Epoch(k.Epoch) > j.Epoch:
		return false
	}
	w, _ := workerOn(s, n.ID, k)
	return w == nil || w.State.Ended()
}

// workerOn is a worker of a job's present epoch on a node with its job, or nil.
func workerOn(s *cluster.State, id cluster.NodeID, k reconcile.Key) (*cluster.Worker, *cluster.Job) {
	j := s.Job(cluster.JobID(k.Job))
	if j == nil || uint64(j.Epoch) != k.Epoch || !j.State.Holding() || k.Rank < 0 || k.Rank >= len(j.Workers) {
		return nil, nil
	}
	if w := &j.Workers[k.Rank]; w.Node == id {
		return w, j
	}
	return nil, nil
}

func isStale(n *cluster.Node, k reconcile.Key) bool {
	return slices.ContainsFunc(n.Stale, func(r cluster.WorkerRef) bool {
		return uint64(r.Job) == k.Job && uint64(r.Epoch) == k.Epoch && int(r.Rank) == k.Rank
	})
}

func keyOf(j *cluster.Job, w *cluster.Worker) reconcile.Key {
	return reconcile.Key{Job: uint64(j.ID), Epoch: uint64(j.Epoch), Rank: int(w.Rank)}
}

// holdersOn lists the jobs that hold GPUs of a node, by id.
func holdersOn(s *cluster.State, n *cluster.Node) []*cluster.Job {
	var ids []cluster.JobID
	for i := range n.GPUs {
		if id := n.GPUs[i].Job; id != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var jobs []*cluster.Job
	for _, id := range slices.Compact(ids) {
		if j := s.Job(id); j != nil && j.State.Holding() {
			jobs = append(jobs, j)
		}
	}
	return jobs
}
