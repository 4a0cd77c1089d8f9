package control

import (
	"math"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// masterPortBase is the first of the ports for MASTER_PORT. To it is added the
// index of rank 0's first GPU on its node: whole GPUs are exclusive, so are the
// ports. A node has at most cluster.MaxNodeGPUs of them.
const masterPortBase = 29500

// Order is all that should run on one node, and which ends its agent need not
// tell of any more.
type Order struct {
	Assignments  []Assignment // by job, each with one worker at least
	Acknowledged []WorkerKey  // in the order in which they were reported
}

// Assignment is a job's allocation as one node sees it.
type Assignment struct {
	Job        *cluster.Job        // what to run and in which epoch; the state's own, not to be edited
	Members    []cluster.Rank      // who makes up the ring, in its order
	Workers    []AssignedWorker    // of this node, by rank, without those that have ended
	Nodes      []GangNode          // all of the gang's, in order of their ranks
	NodeRank   int                 // this node's place in Nodes
	MasterPort int                 // on the gang's first node, for the framework's own rendezvous; 0: the agent of the only worker chooses
	Restarts   int                 // launches before this one
	Resume     *cluster.Checkpoint // to go on from, nil: none; not to be edited
	Stop       *Stop               // how the workers are to stop, nil: they are not
	UserLimit  int64               // bytes that the checkpoints of the job's user may take; 0: no limit
	All, Gang  cluster.Experience  // of all nodes, and of the gang's: for jobs that save by it, else zero
}

// AssignedWorker is one worker of an assignment.
type AssignedWorker struct {
	Rank      cluster.Rank
	LocalRank int      // among the job's workers of this node
	GPUs      []string // UUIDs; the state's own, not to be edited
	Milli     int32    // what it may use of each of them, thousandths: 1..cluster.WholeGPU
}

// LabelLocal is the label of a node whose agent keeps checkpoints on the node's own disk. The agent itself sets it, so that the state has it: each
// agent of a gang must come to the same.
const LabelLocal = "checkpoint.gangline.dev/local"

// GangNode is what other nodes must know of one node of a gang.
type GangNode struct {
	Host    string // where its workers are reached
	GPUs    int    // that the job holds there
	Workers int
	Local   bool // its agent keeps checkpoints on the node's own disk
}

// Stop is how workers are to stop.
type Stop struct {
	Reason string        // a sentence, for people and for the worker
	Warn   time.Duration // from the warning to SIGTERM; 0: no warning
	Grace  time.Duration // from SIGTERM to SIGKILL
}

// OrderFor returns all that should run on a node by a state, and which of the
// ends in its agent's last report the state has taken in. It is false while
// there is nothing to be said: until a node that is unknown or lost is
// registered (again), the workers on it may still be its own.
func OrderFor(s *cluster.State, node cluster.NodeID, reported []WorkerStatus) (Order, bool) {
	var o Order
	n := s.Node(node)
	if n == nil || n.State == cluster.NodeLost {
		return o, false
	}
	for _, j := range holdersOn(s, n) {
		if a := assignment(s, j, node); len(a.Workers) > 0 {
			o.Assignments = append(o.Assignments, a)
		}
	}
	for i := range reported {
		if w := &reported[i]; w.State.Ended() && endRecorded(s, n, w.Key) {
			o.Acknowledged = append(o.Acknowledged, w.Key)
		}
	}
	return o, true
}

// OrderKey is what of a job decides the orders of its gang's nodes: they need
// new ones when it differs from before. Other changes, such as each worker's
// start, need none: in a gang of a thousand nodes they would make a million.
// The zero OrderKey is that of a job that holds nothing.
type OrderKey struct {
	epoch  cluster.Epoch
	stop   cluster.StopCause
	reason string
	formed int32 // who is a member has changed
	size   int   // one was started in the place of another
}

// OrderKeyOf returns a job's OrderKey; j may be nil.
func OrderKeyOf(j *cluster.Job) OrderKey {
	if j == nil || !j.State.Holding() {
		return OrderKey{}
	}
	return OrderKey{epoch: j.Epoch, stop: j.Stop, reason: j.StopReason, formed: j.Formation(), size: len(j.Workers)}
}

// holdersOn lists the jobs that hold GPUs of a node, by id.
func holdersOn(s *cluster.State, n *cluster.Node) []*cluster.Job {
	var ids []cluster.JobID
	for i := range n.GPUs {
		n.GPUs[i].EachHolder(func(id cluster.JobID, _ cluster.Epoch) { ids = append(ids, id) })
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

// assignment is a job's allocation as one node sees it. Workers that have
// ended are left out, so that an agent which forgot them starts none twice.
func assignment(s *cluster.State, j *cluster.Job, node cluster.NodeID) Assignment {
	a := Assignment{
		Job: j, Members: j.Members(), NodeRank: slices.Index(j.NodeRanks, node), MasterPort: masterPort(s, j),
		Restarts: int(min(j.Epoch-1, math.MaxInt32)), Resume: j.Checkpoint, Stop: stopOrder(j),
	}
	a.Nodes = make([]GangNode, len(j.NodeRanks))
	places := make(map[cluster.NodeID]*GangNode, len(j.NodeRanks))
	for i, id := range j.NodeRanks {
		a.Nodes[i].Host, a.Nodes[i].Local = hostOf(s, id), keepsLocal(s, id)
		places[id] = &a.Nodes[i]
	}
	a.UserLimit = s.Policy().Checkpoints.Of(j.User)
	if p := j.Spec.Checkpoints; p != nil && p.Auto {
		a.All, a.Gang = s.Experience(), s.ExperienceOf(j)
	}
	local := 0
	for i := range j.Workers {
		w := &j.Workers[i]
		if len(w.GPUs) == 0 {
			continue // another has taken over its GPUs, and counts
		}
		if g := places[w.Node]; g != nil {
			g.GPUs += len(w.GPUs)
			g.Workers++
		}
		if w.Node != node {
			continue
		}
		if !w.State.Ended() {
			a.Workers = append(a.Workers, AssignedWorker{Rank: w.Rank, LocalRank: local, GPUs: w.GPUs, Milli: j.Spec.Share()})
		}
		local++
	}
	return a
}

// stopOrder is how the workers of a stopping job are to stop, or nil. Where a
// peer is gone the others are stuck in the ring: a warning would only wait.
func stopOrder(j *cluster.Job) *Stop {
	if j.State != cluster.Stopping {
		return nil
	}
	stop := &Stop{Reason: stopReason(j), Warn: j.Spec.Warn, Grace: j.Spec.Grace}
	if j.Stop == cluster.StopFailure || j.Stop == cluster.StopNodeLost {
		stop.Warn = 0
	}
	return stop
}

// stopReason is what the workers are told: the reason that came with the
// decision, or else what its cause means.
func stopReason(j *cluster.Job) string {
	switch {
	case j.StopReason != "":
		return j.StopReason
	case j.Stop == cluster.StopPreempt:
		return "preempted: another job needs the GPUs"
	case j.Stop == cluster.StopResize:
		return "resized: the job starts again at once with more or fewer GPUs"
	case j.Stop == cluster.StopMove:
		return "moved: the job starts again elsewhere, so that another one fits here"
	case j.Stop == cluster.StopDrain:
		return "drained: the node is being emptied"
	default:
		return "asked to stop"
	}
}

// masterPort is the port for MASTER_PORT on the gang's first node. Shares of
// one GPU have nothing of their own to number them by that stays while others
// come and go; but such a gang is one worker, so that nobody but its agent,
// which knows the node's ports, has to know the port.
func masterPort(s *cluster.State, j *cluster.Job) int {
	if j.Spec.Shared() {
		return 0
	}
	if len(j.Workers) == 0 || len(j.Workers[0].GPUs) == 0 {
		return masterPortBase
	}
	n := s.Node(j.Workers[0].Node)
	if n == nil {
		return masterPortBase
	}
	return masterPortBase + max(n.FindGPU(j.Workers[0].GPUs[0]), 0)
}

// hostOf is where other nodes reach a node's workers.
func keepsLocal(s *cluster.State, id cluster.NodeID) bool {
	n := s.Node(id)
	return n != nil && n.Label(LabelLocal) != ""
}

func hostOf(s *cluster.State, id cluster.NodeID) string {
	n := s.Node(id)
	switch {
	case n == nil:
		return string(id)
	case n.Host == "":
		return n.Name
	default:
		return n.Host
	}
}

// endRecorded reports whether the state has taken in a worker's end, or will
// never need it: its epoch is over, or its job forgotten.
func endRecorded(s *cluster.State, n *cluster.Node, k WorkerKey) bool {
	if isStale(n, k) {
		return false
	}
	j := s.Job(k.Job)
	switch {
	case j == nil, k.Epoch < j.Epoch:
		return true
	case k.Epoch > j.Epoch:
		return false // this state does not know the epoch yet
	}
	w := WorkerOn(s, n.ID, k)
	return w == nil || w.State.Ended()
}
