package cluster

import (
	"fmt"
	"slices"
)

// applyReport takes what an agent says of its workers. Reports are levels:
// one that repeats what is known changes nothing; one that goes back in a
// worker's life is ignored.
func (s *State) applyReport(c *ReportWorkers) Result {
	n := s.Node(c.Node)
	if n == nil {
		return refuse(NotFound, "node %s is not registered", c.Node)
	}
	var res Result
	t := turn{s: s, node: c.Node, stale: len(n.Stale) > 0, jobs: s.told[:0]}
	failed := 0 // they come last: a failure is judged by all that is known
	for i := range c.Workers {
		if r := &c.Workers[i]; r.failed() {
			failed++
		} else if freed := t.take(r); len(freed) > 0 {
			res.Changes = append(res.Changes, freed...)
		}
	}
	for i := 0; failed > 0; i++ {
		if r := &c.Workers[i]; r.failed() {
			failed--
			res.Changes = append(res.Changes, t.take(r)...)
		}
	}
	for i := range t.jobs {
		j := t.jobs[i].job
		if j.State == Starting && allStarted(j) {
			j.State, j.RunningAt = Running, s.now
			j.Reason = whereText(len(j.Workers), len(j.NodeRanks))
		}
		s.dismiss(j)
		switch freed := s.settle(j); {
		case len(res.Changes) > 0:
			res.Changes = append(res.Changes, freed...)
		case len(freed) > 0:
			res.Changes = freed // it has room for the job
		default:
			res.Changes = s.changes.room(len(t.jobs))
		}
		if t.jobs[i].edited {
			s.store(t.jobs[i].was, j)
		} else {
			s.putJob(j)
		}
		res.Changes = append(res.Changes, Change{Job: j.ID})
		t.jobs[i] = told{} // no job is kept for it
	}
	s.told = t.jobs
	return res
}

// judgeFailure stops the gang of a failed worker, and finds who is to blame:
// the first worker that failed of itself, not because a peer was lost, its
// supervisor vanished, or it had been asked to stop; or the one that left its
// peers, though with exit code 0.
func (s *State) judgeFailure(j *Job, w *Worker, stopped bool) {
	itself := w.State == WorkerExited && !w.PeerLost && !stopped
	left := slices.IndexFunc(j.Workers, func(o Worker) bool { return o.State == WorkerExited && !o.failed() })
	if j.State != Stopping && w.PeerLost && left >= 0 {
		// Nobody had asked that one to stop. Taken for a lost peer, the job would start again for ever.
		s.beginStop(j, StopFailure, s.describeEnd(&j.Workers[left])+" while its peers still needed it: "+s.describeEnd(w))
		j.Blamed, j.Workers[left].Blamed = true, true
		return
	}
	if s.goOn(j, itself) {
		return
	}
	if j.State != Stopping {
		s.beginStop(j, StopFailure, s.describeEnd(w))
	} else if itself && !j.Blamed && j.Stop == StopFailure {
		j.StopReason = cut(s.describeEnd(w))
		j.Reason = cut("stops: " + j.StopReason)
	}
	w.Blamed = itself && !j.Blamed
	j.Blamed = j.Blamed || itself
}

// failed reports whether the worker ended otherwise than it should.
func (r *WorkerReport) failed() bool {
	return r.State == WorkerLost || r.ExitCode != 0 || r.Signal != 0
}

func allStarted(j *Job) bool {
	for i := range j.Workers {
		if j.Workers[i].State < WorkerRunning {
			return false
		}
	}
	return true
}

// clearStale drops an ended worker from a node's stale list, if it is there.
func (s *State) clearStale(node NodeID, r *WorkerReport) ([]Change, bool) {
	old := s.Node(node)
	i := slices.IndexFunc(old.Stale, func(w WorkerRef) bool {
		return w.Job == r.Job && w.Epoch == r.Epoch && w.Rank == r.Rank
	})
	if i < 0 {
		return nil, false
	}
	n := *old
	n.Stale = slices.Delete(slices.Clone(n.Stale), i, i+1)
	n.ChangedAt = s.now
	s.putNode(&n)
	return []Change{{Node: node}}, true
}

// applyRegister makes a node known or takes its news.
func (s *State) applyRegister(c *RegisterNode) Result {
	in := &c.Node
	if err := validateNode(in); err != nil {
		return refuse(Invalid, "%s", err)
	}
	other, old := s.NodeByName(in.Name), s.Node(in.ID)
	if other != nil && other.ID == in.ID {
		other = nil
	}
	if other != nil && (other.State != NodeLost || other.Holds()) {
		return refuse(NameTaken, "a live node named %q exists (id %s, agent at %s): give this agent another --name, or remove its state directory if it is meant to be that node",
			in.Name, other.ID, other.Address)
	}
	if old != nil && in.Incarnation < old.Incarnation {
		return refuse(Conflict, "node %s: agent incarnation %d is older than %d: another agent runs with a copy of its state directory",
			in.Name, in.Incarnation, old.Incarnation)
	}
	if old == nil && other == nil && s.nodes.Len() >= MaxNodes {
		return refuse(TooMany, "the cluster has %d nodes, its most: lost ones are forgotten after a while", s.nodes.Len())
	}
	if err := s.checkGPUs(in); err != nil {
		return refuse(Conflict, "%s", err)
	}
	var res Result
	if other != nil {
		s.dropNode(other)
		res.Changes = append(res.Changes, Change{Node: other.ID})
	}
	res.Changes = append(res.Changes, s.claimGPUs(in)...)
	n := Node{RegisteredAt: s.now}
	if old != nil {
		n = *old
	}
	held := n.GPUs
	n.ID, n.Name, n.State, n.Reason = in.ID, in.Name, NodeReady, ""
	n.Address, n.Host, n.BootID, n.Incarnation, n.Version = in.Address, in.Host, in.BootID, in.Incarnation, in.Version
	n.CPUMilli, n.MemBytes, n.Labels, n.Taints, n.ChangedAt = in.CPUMilli, in.MemBytes, in.Labels, in.Taints, s.now
	s.place(&n)
	n.GPUs = mergeGPUs(held, in.GPUs)
	n.Stale = s.staleWorkers(n.ID, c.Running)
	s.putNode(&n)
	res.Changes = append(res.Changes, Change{Node: n.ID})
	return res
}

// checkGPUs refuses GPUs that another node has: given out twice, they would be
// used twice. A lost node's free ones may move.
func (s *State) checkGPUs(in *Node) error {
	for i := range in.GPUs {
		uuid := in.GPUs[i].UUID
		id, known := s.gpus.Get(uuid)
		if !known || id == in.ID {
			continue
		}
		n := s.Node(id)
		switch g := &n.GPUs[n.FindGPU(uuid)]; {
		case n.State != NodeLost:
			return fmt.Errorf("node %s has GPU %s, which is node %s's (id %s, agent at %s): let only one agent on a machine have its GPUs, stop the other one",
				in.Name, uuid, n.Name, n.ID, n.Address)
		case g.Held():
			holder := JobID(0)
			g.EachHolder(func(id JobID, _ Epoch) { holder = id })
			return fmt.Errorf("node %s has GPU %s, which job %d still holds on the lost node %s: it is free when all workers of the job have ended",
				in.Name, uuid, holder, n.Name)
		}
	}
	return nil
}

// claimGPUs takes the GPUs of a node that is registered away from lost nodes.
func (s *State) claimGPUs(in *Node) []Change {
	var changes []Change
	for i := range in.GPUs {
		id, known := s.gpus.Get(in.GPUs[i].UUID)
		if !known || id == in.ID {
			continue
		}
		n := *s.Node(id)
		g := n.FindGPU(in.GPUs[i].UUID)
		n.GPUs, n.ChangedAt = slices.Delete(slices.Clone(n.GPUs), g, g+1), s.now
		s.putNode(&n)
		changes = append(changes, Change{Node: id})
	}
	return changes
}

func validateNode(n *Node) error {
	switch {
	case n.ID == "" || len(n.ID) > MaxNameLen:
		return fmt.Errorf("node id must be 1 to %d bytes", MaxNameLen)
	case n.Name == "" || len(n.Name) > MaxNameLen:
		return fmt.Errorf("node name must be 1 to %d bytes", MaxNameLen)
	case len(n.GPUs) > MaxNodeGPUs:
		return fmt.Errorf("node %s has %d GPUs, at most %d", n.Name, len(n.GPUs), MaxNodeGPUs)
	}
	for i := range n.GPUs {
		if n.GPUs[i].UUID == "" || n.FindGPU(n.GPUs[i].UUID) != i {
			return fmt.Errorf("node %s: GPU %d has no UUID of its own (%q)", n.Name, i, n.GPUs[i].UUID)
		}
	}
	return nil
}

// mergeGPUs takes a node's new inventory and keeps who holds what. A GPU that
// vanished while held stays, unhealthy, until its holder has let go.
func mergeGPUs(old, inventory []GPU) []GPU {
	out := make([]GPU, 0, len(inventory))
	for _, g := range inventory {
		g.Job, g.Epoch, g.Shares = 0, 0, nil
		if i := slices.IndexFunc(old, func(o GPU) bool { return o.UUID == g.UUID }); i >= 0 {
			g.Job, g.Epoch, g.Shares = old[i].Job, old[i].Epoch, old[i].Shares
		}
		out = append(out, g)
	}
	for _, o := range old {
		if o.Held() && !slices.ContainsFunc(inventory, func(g GPU) bool { return g.UUID == o.UUID }) {
			o.Healthy, o.Reason = false, reasonVanished
			out = append(out, o)
		}
	}
	return out
}

const reasonVanished = "the agent no longer finds this GPU"

// missing reports whether a GPU is a free one that the agent no longer finds.
func missing(g *GPU) bool { return !g.Held() && g.Reason == reasonVanished }

// staleWorkers lists those running workers that the state has given up.
func (s *State) staleWorkers(node NodeID, running []WorkerRef) []WorkerRef {
	var stale []WorkerRef
	for _, w := range running {
		j := s.Job(w.Job)
		if j != nil && j.Epoch == w.Epoch && j.State.Holding() && w.Rank >= 0 && int(w.Rank) < len(j.Workers) &&
			j.Workers[w.Rank].Node == node && !j.Workers[w.Rank].State.Ended() {
			continue
		}
		if len(stale) < maxStaleRefs {
			stale = append(stale, w)
		}
	}
	return stale
}

// applyLose declares a node lost: its workers are presumed dead, and their
// jobs stop and start again elsewhere. The epoch fences what may still run.
func (s *State) applyLose(c *LoseNode) Result {
	old := s.Node(c.Node)
	switch {
	case old == nil:
		return refuse(NotFound, "node %s is not registered", c.Node)
	case old.State == NodeLost:
		return Result{}
	case old.Incarnation != c.Incarnation:
		return refuse(Conflict, "node %s has come back (incarnation %d)", old.Name, old.Incarnation)
	}
	n := *old
	n.State, n.Reason, n.ChangedAt = NodeLost, cut(c.Reason), s.now
	s.putNode(&n)
	res := Result{Changes: []Change{{Node: n.ID}}}
	var jobs []JobID
	for i := range n.GPUs {
		n.GPUs[i].EachHolder(func(id JobID, _ Epoch) {
			if !slices.Contains(jobs, id) {
				jobs = append(jobs, id)
			}
		})
	}
	for _, id := range jobs {
		res.Changes = append(res.Changes, s.loseWorkers(id, &n)...)
	}
	return res
}

func (s *State) loseWorkers(id JobID, n *Node) []Change {
	j := *s.Job(id)
	j.Workers = slices.Clone(j.Workers)
	for i := range j.Workers {
		if w := &j.Workers[i]; w.Node == n.ID && !w.State.Ended() {
			w.State, w.Message = WorkerLost, "node lost: "+n.Reason
		}
	}
	reason := cut(fmt.Sprintf("node %s was lost (%s)", n.Name, n.Reason))
	switch {
	case s.goOn(&j, false):
	case j.State != Stopping:
		s.beginStop(&j, StopNodeLost, reason)
	case j.Stop == StopFailure && !j.Blamed:
		// Its peers noticed before the lease ran out: this is what they noticed.
		j.Stop, j.StopReason, j.Reason = StopNodeLost, reason, cut("stops: "+reason)
	}
	changes := s.settle(&j)
	s.putJob(&j)
	return append(changes, Change{Job: id})
}

// applyForgetNode drops a lost node that holds nothing.
func (s *State) applyForgetNode(c *ForgetNode) Result {
	n := s.Node(c.Node)
	switch {
	case n == nil:
		return Result{}
	case n.State != NodeLost || n.Holds():
		return refuse(Conflict, "node %s is %s or holds jobs: only a lost, empty node can be forgotten", n.Name, n.State)
	}
	s.dropNode(n)
	return Result{Changes: []Change{{Node: n.ID}}}
}
