package api

import (
	"math"
	"slices"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// masterPortBase is the first of the ports for MASTER_PORT. To it is added the
// index of rank 0's first GPU on its node: GPUs are exclusive, so are the ports.
const masterPortBase = 29500

// peersFunc returns the address of each rank of a job's epoch, or nil until
// all ranks have asked for their rendezvous.
type peersFunc func(cluster.JobID, cluster.Epoch) []string

// desiredFor is all that should run on a node by a state, and which of the
// exits in the agent's last report the state has taken in. It is pure: equal
// inputs give equal orders, whichever server computes them.
func desiredFor(st *cluster.State, id cluster.NodeID, reported []*agentv1.WorkerStatus, peers peersFunc, term uint64) *agentv1.Desired {
	d := &agentv1.Desired{Fence: &agentv1.Fence{Term: term, Index: st.Index()}}
	n := st.Node(id)
	if n == nil {
		return d
	}
	for _, j := range holdersOn(st, n) {
		if a := assignment(st, j, id, peers); len(a.GetWorkers()) > 0 {
			d.Assignments = append(d.Assignments, a)
		}
	}
	for _, w := range reported {
		if ended(w) && exitRecorded(st, n, w.GetKey()) {
			d.Acknowledged = append(d.Acknowledged, w.GetKey())
		}
	}
	return d
}

// holdersOn lists the jobs that hold GPUs of a node, by id.
func holdersOn(st *cluster.State, n *cluster.Node) []*cluster.Job {
	var ids []cluster.JobID
	for i := range n.GPUs {
		if id := n.GPUs[i].Job; id != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var jobs []*cluster.Job
	for _, id := range slices.Compact(ids) {
		if j := st.Job(id); j != nil && j.State.Holding() {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// assignment is a job's allocation as one node sees it. Workers that have
// ended are left out, so that an agent which forgot them starts none twice.
func assignment(st *cluster.State, j *cluster.Job, id cluster.NodeID, peers peersFunc) *agentv1.Assignment {
	a := &agentv1.Assignment{
		JobId: uint64(j.ID), Epoch: uint64(j.Epoch), JobName: j.Spec.Name, Queue: j.Spec.Queue, User: j.User,
		WorldSize: clamp32(len(j.Workers)), NodeRank: clamp32(slices.Index(j.NodeRanks, id)),
		PerNode: j.Spec.Launch == cluster.LaunchPerNode,
		Command: j.Spec.Command, Dir: j.Spec.Dir,
		MasterPort: masterPort(st, j),
		Restarts:   clamp32(int(min(j.Epoch-1, math.MaxInt32))), MaxRestarts: j.Spec.Retries,
		CheckpointKeep: j.Spec.KeepCkpts,
		Stop:           stopOrder(j),
		Peers:          peers(j.ID, j.Epoch),
	}
	if j.Checkpoint != nil {
		a.ResumeFrom = j.Checkpoint.Path
	}
	if len(j.Spec.Env) > 0 {
		a.Env = make(map[string]string, len(j.Spec.Env))
	}
	for _, e := range j.Spec.Env {
		a.Env[e.Name] = e.Value
	}
	nodes := map[cluster.NodeID]*agentv1.GangNode{}
	for _, node := range j.NodeRanks {
		g := &agentv1.GangNode{Host: hostOf(st, node)}
		nodes[node] = g
		a.Nodes = append(a.Nodes, g)
	}
	local := int32(0)
	for i := range j.Workers {
		w := &j.Workers[i]
		if g := nodes[w.Node]; g != nil {
			g.Gpus += clamp32(len(w.GPUs))
			g.Workers++
		}
		if w.Node != id {
			continue
		}
		if !w.State.Ended() {
			a.Workers = append(a.Workers, &agentv1.AssignedWorker{Rank: int32(w.Rank), LocalRank: local, GpuUuids: w.GPUs})
		}
		local++
	}
	return a
}

// stopOrder is how the workers of a stopping job are to stop, or nil. Where a
// peer is gone the others are stuck in the ring: a warning would only wait.
func stopOrder(j *cluster.Job) *agentv1.Stop {
	if j.State != cluster.Stopping {
		return nil
	}
	warn := j.Spec.Warn
	if j.Stop == cluster.StopFailure || j.Stop == cluster.StopNodeLost {
		warn = 0
	}
	return &agentv1.Stop{Reason: j.StopReason, WarnMs: warn.Milliseconds(), GraceMs: j.Spec.Grace.Milliseconds()}
}

func masterPort(st *cluster.State, j *cluster.Job) int32 {
	if len(j.Workers) == 0 || len(j.Workers[0].GPUs) == 0 {
		return masterPortBase
	}
	n := st.Node(j.Workers[0].Node)
	if n == nil {
		return masterPortBase
	}
	return masterPortBase + clamp32(max(n.FindGPU(j.Workers[0].GPUs[0]), 0))
}

// hostOf is where other nodes reach a node's workers.
func hostOf(st *cluster.State, id cluster.NodeID) string {
	n := st.Node(id)
	switch {
	case n == nil:
		return string(id)
	case n.Host == "":
		return n.Name
	default:
		return n.Host
	}
}

func ended(w *agentv1.WorkerStatus) bool {
	return w.GetState() == agentv1.WorkerState_WORKER_STATE_EXITED || w.GetState() == agentv1.WorkerState_WORKER_STATE_LOST
}

// exitRecorded reports whether the state has taken in a worker's exit, or will
// never need it: its epoch is over, or its job forgotten.
func exitRecorded(st *cluster.State, n *cluster.Node, k *agentv1.WorkerKey) bool {
	if isStale(n, k) {
		return false
	}
	j := st.Job(cluster.JobID(k.GetJobId()))
	switch {
	case j == nil, cluster.Epoch(k.GetEpoch()) < j.Epoch:
		return true
	case cluster.Epoch(k.GetEpoch()) > j.Epoch:
		return false // this state does not know the epoch yet
	}
	w := workerOn(j, n.ID, k)
	return w == nil || w.State.Ended()
}

// isStale reports whether the state has given up a worker that still ran.
func isStale(n *cluster.Node, k *agentv1.WorkerKey) bool {
	return slices.ContainsFunc(n.Stale, func(w cluster.WorkerRef) bool {
		return uint64(w.Job) == k.GetJobId() && uint64(w.Epoch) == k.GetEpoch() && int32(w.Rank) == k.GetRank()
	})
}

// workerOn is a worker of the job's present epoch on a node, or nil.
func workerOn(j *cluster.Job, node cluster.NodeID, k *agentv1.WorkerKey) *cluster.Worker {
	if j == nil || uint64(j.Epoch) != k.GetEpoch() || !j.State.Holding() || k.GetRank() < 0 || int(k.GetRank()) >= len(j.Workers) {
		return nil
	}
	if w := &j.Workers[k.GetRank()]; w.Node == node {
		return w
	}
	return nil
}

func clamp32(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }
