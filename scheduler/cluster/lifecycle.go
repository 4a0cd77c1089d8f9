package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// applyStart gives a Pending job its GPUs. All of the plan is checked first;
// nothing is taken unless all of it can be.
func (s *State) applyStart(c *StartJob) Result {
	old := s.Job(c.Job)
	switch {
	case old == nil:
		return refuse(NotFound, "job %d does not exist", c.Job)
	case old.State != Pending || c.Epoch != old.Epoch+1:
		return refuse(Conflict, "job %d is %s in epoch %d: it cannot start epoch %d", c.Job, old.State, old.Epoch, c.Epoch)
	case old.Unmet != 0:
		return refuse(Conflict, "job %d %s", c.Job, s.afterText(old))
	case s.now < old.NotBefore:
		return refuse(Conflict, "job %d is in back-off for another %s", c.Job, old.NotBefore.Sub(s.now))
	}
	to, err := s.checkPlacement(old.Spec, c.Workers)
	if err != nil {
		return refuse(Conflict, "job %d: %s", c.Job, err)
	}
	was, j := s.was(old), s.starting(old)
	if len(c.Workers) == 1 { // most: in one piece
		one := &struct {
			worker [1]Worker
			node   [1]NodeID
		}{}
		j.Workers, j.NodeRanks = one.worker[:], append(one.node[:0], to.nodes...)
	} else {
		j.Workers, j.NodeRanks = make([]Worker, len(c.Workers)), slices.Clone(to.nodes)
	}
	j.State, j.Epoch = Starting, c.Epoch
	j.StartedAt, j.RunningAt, j.NotBefore = s.now, 0, 0
	j.Stop, j.StopReason, j.Blamed = 0, "", false
	j.Progress, j.Kept, j.Reformed = nil, nil, 0
	for i, p := range c.Workers {
		j.Workers[i] = Worker{Rank: p.Rank, Node: p.Node, GPUs: p.GPUs, State: WorkerAssigned}
	}
	if j.Reason = "starts 1 worker on 1 node"; len(j.Workers) > 1 || len(to.nodes) > 1 { // else as most jobs do
		j.Reason = "starts " + whereText(len(j.Workers), len(to.nodes))
	}
	j.Rate = int64(j.Held()) * int64(j.Spec.Share()) * s.Policy().WeightOf(to.gpuType) / 1000
	s.charge(j, j.Rate)
	changes := append(s.changes.room(1+len(to.nodes)), Change{Job: j.ID})
	for _, id := range to.nodes {
		changes = append(changes, Change{Node: id})
	}
	s.hold(j, to)
	if j != old {
		s.jobs.set(s.mine(), uint64(j.ID), j, true)
	}
	s.store(was, j)
	return Result{Job: j.ID, Changes: changes}
}

// starting returns a pending job to be started: the job itself, if nobody else
// sees it, else a copy. Nothing that a pending job is followed by changes when it
// starts for the first time without a reservation, so whoever knows where the
// pending one was need not see that it is one no more.
func (s *State) starting(old *Job) *Job {
	if old.Epoch == 0 && old.Kept == nil && old.NotBefore == 0 {
		if _, mine := s.jobs.edit(s.mine(), uint64(old.ID)); mine {
			return old
		}
	}
	j := *old
	return &j
}

// hold marks the GPUs of a gang as held by its job. Ranks on a node are neighbours.
func (s *State) hold(j *Job, to *gang) {
	first, gpus := 0, to.gpus
	for _, id := range to.nodes {
		n := s.ownNode(s.Node(id))
		for ; first < len(j.Workers) && j.Workers[first].Node == id; first++ {
			mine := len(j.Workers[first].GPUs)
			for _, i := range gpus[:mine] {
				g := &n.GPUs[i]
				if j.Spec.Shared() {
					g.Shares = insertShare(g.Shares, Share{Job: j.ID, Epoch: j.Epoch, Milli: j.Spec.GPUMilli})
				} else {
					g.Job, g.Epoch = j.ID, j.Epoch
				}
				n.CPUUsed += j.Spec.CPUPerGPU
				n.MemUsed += j.Spec.MemPerGPU
			}
			gpus = gpus[mine:]
		}
		s.putHeld(n)
	}
}

// ownNode returns a node that only this State knows, so that who holds its GPUs
// may be written into it: the node itself, if it was made since the last
// Snapshot, else a copy. The caller gives it to putHeld.
func (s *State) ownNode(n *Node) *Node {
	if n.by == s.mine() {
		return n
	}
	next := *n
	next.GPUs, next.by = slices.Clone(n.GPUs), s.mine()
	return &next
}

// insertShare returns the shares with one more, in order of jobs.
func insertShare(old []Share, add Share) []Share {
	i, _ := slices.BinarySearchFunc(old, add.Job, func(h Share, id JobID) int { return cmp.Compare(h.Job, id) })
	return slices.Insert(slices.Clone(old), i, add)
}

// release frees all GPUs that the job holds and returns the nodes it touched.
func (s *State) release(j *Job) []Change {
	changes := s.changes.room(len(j.NodeRanks) + 1) // the caller may add the job
	for _, id := range j.NodeRanks {
		n := s.Node(id)
		if n == nil || !n.heldBy(j.ID) {
			continue
		}
		n = s.ownNode(n)
		held, vanished := 0, false
		for i := range n.GPUs {
			g := &n.GPUs[i]
			if g.heldBy(j.ID) {
				g.letGo(j.ID)
				n.CPUUsed -= j.Spec.CPUPerGPU
				n.MemUsed -= j.Spec.MemPerGPU
				held++
			}
			vanished = vanished || !g.Healthy && missing(g)
		}
		s.learn(j, n, held)
		if vanished {
			next := *n // its GPUs are others now: to be seen as a new version
			next.GPUs = slices.DeleteFunc(slices.Clone(n.GPUs), func(g GPU) bool { return missing(&g) })
			s.putNode(&next)
		} else {
			s.putHeld(n)
		}
		changes = append(changes, Change{Node: id})
	}
	return changes
}

// heldBy reports whether a job holds a GPU of the node or a share of one.
func (n *Node) heldBy(id JobID) bool {
	for i := range n.GPUs { // by hand: slices.ContainsFunc would copy each
		if n.GPUs[i].heldBy(id) {
			return true
		}
	}
	return false
}

// heldBy reports whether a job holds the GPU or a share of it.
func (g *GPU) heldBy(id JobID) bool {
	return g.Job == id || len(g.Shares) > 0 && slices.ContainsFunc(g.Shares, func(h Share) bool { return h.Job == id })
}

// letGo takes a job that holds the GPU, or a share of it, off it.
func (g *GPU) letGo(id JobID) {
	if g.Job == id {
		g.Job, g.Epoch = 0, 0
		return
	}
	g.Shares = slices.DeleteFunc(slices.Clone(g.Shares), func(h Share) bool { return h.Job == id })
	if len(g.Shares) == 0 {
		g.Shares = nil
	}
}

// beginStop asks a job's workers to stop. A stop that is under way keeps its
// cause, but a cancel overrides every other one.
func (s *State) beginStop(j *Job, cause StopCause, reason string) {
	if j.State == Stopping && cause != StopCancel {
		return
	}
	j.State, j.Stop, j.StopReason = Stopping, cause, cut(reason)
	switch cause {
	case StopPreempt:
		j.PreemptedAt = s.now
	case StopLaunchStuck:
		j.avoidStuck()
	default:
	}
	j.Reason = cut("stops: " + reason)
}

// settle ends the epoch of a job if all its workers have ended: GPUs go back
// and the job becomes final or Pending again. It is the one place where an
// epoch ends. The caller stores j; the nodes it freed are returned.
func (s *State) settle(j *Job) []Change {
	if !j.State.Holding() {
		return nil
	}
	lost, failed := false, false
	for i := range j.Workers {
		w := &j.Workers[i]
		if !w.State.Ended() {
			return nil
		}
		if w.Left {
			continue // the gang went on without it
		}
		lost = lost || w.State == WorkerLost
		failed = failed || w.failed()
	}
	changes := s.release(j)
	j.Attained += j.service(s.now)
	s.charge(j, -j.Rate)
	j.Rate = 0
	s.avoid(j)
	switch {
	case j.Stop == StopCancel:
		s.finish(j, Cancelled, j.StopReason)
	case j.Stop == StopTimeLimit:
		s.finish(j, Failed, j.StopReason)
	case !failed && (j.Stop == 0 || j.Stop == StopDone):
		s.finish(j, Succeeded, "all workers exited with 0")
	case j.Stop == StopLaunchStuck:
		s.fail(j)
	case lost, j.Stop == StopNodeLost, j.Stop.yields(), !j.Blamed:
		// Not the job's fault: a node or a link was lost, or another job came first.
		s.requeue(j)
	default:
		s.fail(j)
	}
	if !j.State.Final() {
		s.attain(s.kinOf(j), j, j.Attained)
		s.foresee(j)
	}
	s.remember(j)
	return changes
}

// remember adds the epoch that has just ended to the job's history.
func (s *State) remember(j *Job) {
	l := Launch{Epoch: j.Epoch, StartedAt: j.StartedAt, EndedAt: s.now, Outcome: j.Reason}
	if len(j.Workers) == 1 && len(j.History) == 0 { // most: in one piece
		one := &struct {
			launch [1]Launch
			node   [1]LaunchNode
		}{node: [1]LaunchNode{{Node: j.Workers[0].Node, Workers: 1}}}
		l.Nodes = one.node[:]
		one.launch[0] = l
		j.History = one.launch[:]
		return
	}
	for i := range j.Workers {
		if n := len(l.Nodes); n > 0 && l.Nodes[n-1].Node == j.Workers[i].Node {
			l.Nodes[n-1].Workers++
			continue
		}
		l.Nodes = append(l.Nodes, LaunchNode{Node: j.Workers[i].Node, Workers: 1})
	}
	keep := j.History
	if len(keep) >= MaxHistory {
		keep = keep[len(keep)-MaxHistory+1:]
	}
	j.History = append(slices.Clone(keep), l)
}

// avoid remembers the nodes that cost the job its epoch: those of workers that
// failed of themselves or were lost. Another node may do better.
func (s *State) avoid(j *Job) {
	if j.Stop != StopFailure && j.Stop != StopNodeLost {
		return
	}
	keep := slices.Clone(j.Avoid)
	for i := range j.Workers {
		w := &j.Workers[i]
		if bad := w.Blamed || w.State == WorkerLost; !bad || slices.Contains(keep, w.Node) {
			continue
		}
		keep = append(keep, w.Node)
	}
	j.Avoid = keep[max(len(keep)-MaxAvoid, 0):]
}

// avoidStuck remembers the nodes on which a gang's workers have not started in
// time, while it still shows which.
func (j *Job) avoidStuck() {
	keep := slices.Clone(j.Avoid)
	for i := range j.Workers {
		if w := &j.Workers[i]; w.State == WorkerAssigned && !slices.Contains(keep, w.Node) {
			keep = append(keep, w.Node)
		}
	}
	j.Avoid = keep[max(len(keep)-MaxAvoid, 0):]
}

// fail counts a failure of the job's own and starts it again if it may.
func (s *State) fail(j *Job) {
	j.Failures++
	allowed := plural(int(j.Spec.Retries), "retry")
	if j.Failures > j.Spec.Retries {
		s.finish(j, Failed, fmt.Sprintf("%s (%s allowed)", j.StopReason, allowed))
		return
	}
	wait := backoff(j.Failures)
	j.State, j.PendingAt, j.NotBefore = Pending, s.now, s.now.Add(wait)
	j.Reason = cut(fmt.Sprintf("waits %s after failure %d (%s allowed): %s", wait, j.Failures, allowed, j.StopReason))
}

// requeue puts the job back to Pending without blame.
func (s *State) requeue(j *Job) {
	wait := time.Duration(0)
	switch {
	case j.Stop == StopPreempt:
		j.Preemptions++
	case j.Stop.yields():
	default:
		j.Requeues++
	}
	if !j.Stop.yields() {
		wait = min(backoff(j.barren()), maxRequeueGap)
	}
	j.State, j.PendingAt, j.NotBefore = Pending, s.now, s.now.Add(wait)
	j.Reason = cut("waits to start again: " + j.StopReason)
}

// barren is how many epochs have ended without blame after the first that did,
// at most those since the last that saved: one that gets on need not wait.
func (j *Job) barren() int32 {
	n := j.Requeues - 1
	if k := j.Checkpoint; k != nil && k.Epoch <= j.Epoch {
		n = int32(min(int64(n), int64(j.Epoch-k.Epoch))) //nolint:gosec // not above n
	}
	return n
}

func (s *State) finish(j *Job, st JobState, reason string) {
	s.finishSeq++
	j.State, j.Reason, j.FinishedAt, j.FinishSeq = st, cut(reason), s.now, s.finishSeq
	j.NotBefore, j.Kept, j.Unmet = 0, nil, 0
	s.conclude(j)
}

// describeEnd says how a worker failed, for people.
func (s *State) describeEnd(w *Worker) string {
	where := string(w.Node)
	if n := s.Node(w.Node); n != nil {
		where = n.Name
	}
	how := fmt.Sprintf("exited with code %d", w.ExitCode)
	switch {
	case w.State == WorkerLost:
		how = "was lost"
	case w.Signal != 0:
		how = fmt.Sprintf("was ended by signal %d", w.Signal)
	}
	switch {
	case strings.HasPrefix(w.Message, how):
		how = w.Message // the agent says the same, and perhaps more
	case w.Message != "":
		how += ": " + w.Message
	}
	return fmt.Sprintf("rank %d on node %s %s", w.Rank, where, how)
}

// whereText says on how many nodes so many workers are.
func whereText(workers, nodes int) string {
	if workers == 1 && nodes == 1 {
		return "1 worker on 1 node" // most jobs
	}
	return plural(workers, "worker") + " on " + plural(nodes, "node")
}

func plural(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case noun == "retry":
		return strconv.Itoa(n) + " retries"
	case noun == "dependency":
		return strconv.Itoa(n) + " dependencies"
	default:
		return strconv.Itoa(n) + " " + noun + "s"
	}
}
