package api

import (
	"math"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// peersFunc returns the addresses of the members of a formation of a job's epoch and their secret, or nil until
// all have asked for their rendezvous.
type peersFunc func(id cluster.JobID, epoch cluster.Epoch, formation int32) (addresses []string, secret []byte)

// desiredFor is control.OrderFor as an agent is sent it, with what the leader's
// memory adds: the peers. It is nil while there is nothing to be said.
func desiredFor(st *cluster.State, id cluster.NodeID, reported []control.WorkerStatus, peers peersFunc, term uint64) *agentv1.Desired {
	order, ok := control.OrderFor(st, id, reported)
	if !ok {
		return nil
	}
	d := &agentv1.Desired{Fence: &agentv1.Fence{Term: term, Index: st.Index()}}
	for i := range order.Assignments {
		a := assignmentToProto(&order.Assignments[i])
		j := order.Assignments[i].Job
		a.Peers, a.RingSecret = peers(j.ID, j.Epoch, j.Formation())
		d.Assignments = append(d.Assignments, a)
	}
	for _, k := range order.Acknowledged {
		d.Acknowledged = append(d.Acknowledged, &agentv1.WorkerKey{JobId: uint64(k.Job), Epoch: uint64(k.Epoch), Rank: int32(k.Rank)})
	}
	return d
}

func assignmentToProto(in *control.Assignment) *agentv1.Assignment {
	j := in.Job
	a := &agentv1.Assignment{
		JobId: uint64(j.ID), Epoch: uint64(j.Epoch), JobName: j.Spec.Name, Queue: j.Spec.Queue, User: j.User,
		WorldSize: clamp32(len(j.Workers)), NodeRank: clamp32(in.NodeRank),
		PerNode: j.Spec.Launch == cluster.LaunchPerNode,
		Command: j.Spec.Command, Dir: j.Spec.WorkDir(),
		MasterPort: clamp32(in.MasterPort),
		Restarts:   clamp32(in.Restarts), MaxRestarts: j.Spec.Retries,
		CheckpointKeep: j.Spec.KeepCkpts,
		Checkpoints:    savingFor(in), CheckpointLimitBytes: in.UserLimit,
		ArrayJobId: uint64(j.Array), ArrayIndex: j.ArrayIndex,
		Shrinks: j.Spec.OnFailure == cluster.FailureShrinks, Formation: j.Formation(), Members: make([]int32, 0, len(in.Members)),
	}
	for _, r := range in.Members {
		a.Members = append(a.Members, int32(r))
	}
	if in.Resume != nil {
		a.ResumeFrom = in.Resume.Path
	}
	if in.Stop != nil {
		a.Stop = &agentv1.Stop{Reason: in.Stop.Reason, WarnMs: in.Stop.Warn.Milliseconds(), GraceMs: in.Stop.Grace.Milliseconds()}
	}
	if len(j.Spec.Env) > 0 {
		a.Env = make(map[string]string, len(j.Spec.Env))
	}
	for _, e := range j.Spec.Env {
		a.Env[e.Name] = e.Value
	}
	for _, n := range in.Nodes {
		a.Nodes = append(a.Nodes, &agentv1.GangNode{Host: n.Host, Gpus: clamp32(n.GPUs), Workers: clamp32(n.Workers), LocalCheckpoints: n.Local})
	}
	for _, w := range in.Workers {
		aw := &agentv1.AssignedWorker{Rank: int32(w.Rank), LocalRank: clamp32(w.LocalRank), GpuUuids: w.GPUs}
		if w.Milli < cluster.WholeGPU {
			aw.GpuMilli = w.Milli
		}
		a.Workers = append(a.Workers, aw)
	}
	return a
}

func clamp32(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }
