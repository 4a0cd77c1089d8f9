package api

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	schedulerv1 "github.com/gangline/gangline/proto/gangline/scheduler/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// specFromProto converts a spec and fills in what a client may leave out. It
// does not validate: cluster.JobSpec.Validate does.
func specFromProto(p *schedulerv1.JobSpec) *cluster.JobSpec {
	s := &cluster.JobSpec{
		Name: p.GetName(), Queue: p.GetQueue(), Priority: cluster.DefaultPrio,
		GPUs: p.GetGpus(), GPUsPerNode: p.GetGpusPerNode(), GPUTypes: slices.Clone(p.GetGpuTypes()),
		CPUPerGPU: p.GetCpuMilliPerGpu(), MemPerGPU: p.GetMemoryBytesPerGpu(),
		TimeLimit: millis(p.GetTimeLimitMs()), Launch: cluster.LaunchMode(clampByte(p.GetLaunch())),
		Command: slices.Clone(p.GetCommand()), Dir: dirOf(p),
		Retries: p.GetRetries(), Preemptible: p.GetPreemptible(), OnFailure: onFailure(p.GetOnFailure()),
		Warn: cluster.DefaultWarn, Grace: cluster.DefaultGrace, KeepCkpts: p.GetCheckpointKeep(),
		MinGPUs: p.GetMinGpus(), GPUMilli: p.GetGpuMilli(), Tolerations: slices.Clone(p.GetTolerations()),
		Topology: cluster.TopologyWish{Level: p.GetTopology().GetLevel(), Required: p.GetTopology().GetRequired()},
		Array: cluster.ArraySpec{
			First: p.GetArray().GetFirst(), Last: p.GetArray().GetLast(), Step: p.GetArray().GetStep(), Parallel: p.GetArray().GetParallel(),
		},
	}
	if len(p.GetAfter()) > 0 {
		s.After = &cluster.Conditions{}
	}
	for _, d := range p.GetAfter() {
		s.After.All = append(s.After.All, dependencyFromProto(d))
	}
	s.Checkpoints = savingFromProto(p.GetCheckpoints())
	for _, k := range slices.Sorted(maps.Keys(p.GetNodeSelector())) {
		s.Selector = append(s.Selector, cluster.Label{Key: k, Value: p.GetNodeSelector()[k]})
	}
	if p != nil && p.Priority != nil {
		s.Priority = p.GetPriority()
	}
	if p != nil && p.WarnMs != nil {
		s.Warn = millis(p.GetWarnMs())
	}
	if p != nil && p.GraceMs != nil {
		s.Grace = millis(p.GetGraceMs())
	}
	for _, e := range p.GetEnv() {
		s.Env = append(s.Env, cluster.EnvVar{Name: e.GetName(), Value: e.GetValue()})
	}
	s.Normalize()
	return s
}

func dependencyFromProto(d *schedulerv1.Dependency) cluster.Dependency {
	out := cluster.Dependency{Job: cluster.JobID(d.GetJob()), Cond: cluster.Condition(clampByte(d.GetCondition())), Index: d.GetIndex()}
	switch {
	case d.GetEach():
		out.Scope = cluster.ScopeEach
	case d.Index != nil:
		out.Scope = cluster.ScopeMember
	}
	return out
}

func dependencyToProto(d cluster.Dependency) *schedulerv1.Dependency {
	out := &schedulerv1.Dependency{Job: uint64(d.Job), Condition: schedulerv1.Condition(d.Cond), Each: d.Scope == cluster.ScopeEach}
	if d.Scope == cluster.ScopeMember {
		out.Index = &d.Index
	}
	return out
}

// onFailure converts what becomes of a gang; what this release does not know stays invalid.
func onFailure(p schedulerv1.OnFailure) cluster.OnFailure {
	return cluster.OnFailure(clampByte(max(p, schedulerv1.OnFailure_ON_FAILURE_RESTART) - 1))
}

// clampByte keeps an unknown enum value invalid instead of letting it wrap.
// dirOf is the working directory that a job asks for, or nil.
func dirOf(p *schedulerv1.JobSpec) *string {
	if dir := p.GetDir(); dir != "" {
		return &dir
	}
	return nil
}

func clampByte[T ~int32](v T) uint8 {
	if v < 0 || v > math.MaxUint8 {
		return math.MaxUint8
	}
	return uint8(v)
}

// millis converts milliseconds and saturates instead of overflowing, so that
// Validate sees a value that is out of range.
func millis(ms int64) time.Duration {
	const limit = math.MaxInt64 / int64(time.Millisecond)
	return time.Duration(min(max(ms, -limit), limit)) * time.Millisecond
}

func specToProto(s *cluster.JobSpec) *schedulerv1.JobSpec {
	warn, grace := s.Warn.Milliseconds(), s.Grace.Milliseconds()
	p := &schedulerv1.JobSpec{
		Name: s.Name, Queue: s.Queue, Priority: &s.Priority,
		Gpus: s.GPUs, GpusPerNode: s.GPUsPerNode, GpuTypes: s.GPUTypes,
		CpuMilliPerGpu: s.CPUPerGPU, MemoryBytesPerGpu: s.MemPerGPU,
		TimeLimitMs: s.TimeLimit.Milliseconds(), Launch: schedulerv1.LaunchMode(s.Launch),
		Command: s.Command, Dir: s.WorkDir(), Retries: s.Retries, Preemptible: s.Preemptible,
		OnFailure: schedulerv1.OnFailure(s.OnFailure + 1),
		WarnMs:    &warn, GraceMs: &grace, CheckpointKeep: s.KeepCkpts,
		MinGpus: s.MinGPUs, GpuMilli: s.GPUMilli, Tolerations: s.Tolerations,
	}
	if t := s.Topology; t.Level != "" {
		p.Topology = &schedulerv1.TopologyWish{Level: t.Level, Required: t.Required}
	}
	if a := s.Array; a != (cluster.ArraySpec{}) {
		p.Array = &schedulerv1.ArraySpec{First: a.First, Last: a.Last, Step: a.Step, Parallel: a.Parallel}
	}
	for _, d := range s.Dependencies() {
		p.After = append(p.After, dependencyToProto(d))
	}
	if len(s.Selector) > 0 {
		p.NodeSelector = make(map[string]string, len(s.Selector))
	}
	for _, l := range s.Selector {
		p.NodeSelector[l.Key] = l.Value
	}
	for _, e := range s.Env {
		p.Env = append(p.Env, &schedulerv1.EnvVar{Name: e.Name, Value: e.Value})
	}
	p.Checkpoints = savingToProto(s.Checkpoints)
	return p
}

// jobToProto converts a job as lists show it, without its workers. Now is for
// what it holds. The result shares strings and lists with the state: it is to
// be sent, not edited.
func jobToProto(j *cluster.Job, now cluster.Time) *schedulerv1.Job {
	p := &schedulerv1.Job{
		Id: uint64(j.ID), Spec: specToProto(j.Spec), User: j.User,
		State: schedulerv1.JobState(j.State), Reason: j.Reason, Epoch: uint64(j.Epoch),
		Progress:        progressToProto(j.Progress),
		SubmittedUnixNs: int64(j.SubmittedAt), PendingUnixNs: int64(j.PendingAt),
		StartedUnixNs: int64(j.StartedAt), FinishedUnixNs: int64(j.FinishedAt),
		Failures: j.Failures, NotBeforeUnixNs: int64(j.NotBefore), Requeues: j.Requeues,
		Array: uint64(j.Array), ArrayIndex: j.ArrayIndex, AttainedGpuSeconds: float64(j.AttainedAt(now)) / 1e6,
		Preemptions: j.Preemptions, PreemptedUnixNs: int64(j.PreemptedAt), ReadyUnixNs: int64(j.ReadyAt),
	}
	if j.State.Holding() {
		p.HeldGpus, p.Formation = j.Held(), j.Formation()
	}
	if c := j.Checkpoint; c != nil {
		p.Checkpoint = &schedulerv1.Checkpoint{
			Step: c.Step, Epoch: uint64(c.Epoch), Path: c.Path, RecordedUnixNs: int64(c.RecordedAt), Bytes: c.Bytes, CostMs: c.Cost.Milliseconds(),
			Remote: c.Remote, RemoteStep: c.RemoteStep, CoveredGpuSeconds: float64(c.Covers) / 1e6,
		}
	}
	return p
}

// wholeJobToProto converts a job with its workers, its ended epochs and the
// nodes that it has to do with.
func wholeJobToProto(st *cluster.State, j *cluster.Job, now cluster.Time) *schedulerv1.Job {
	p := jobToProto(j, now)
	p.Workers = make([]*schedulerv1.Worker, len(j.Workers))
	for i := range j.Workers {
		w := &j.Workers[i]
		p.Workers[i] = &schedulerv1.Worker{
			Rank: int32(w.Rank), NodeId: string(w.Node), GpuUuids: w.GPUs,
			State: schedulerv1.WorkerState(w.State), ExitCode: int32(w.ExitCode), Signal: int32(w.Signal), Message: w.Message, Blamed: w.Blamed,
		}
		if n := st.Node(w.Node); n != nil {
			p.Workers[i].NodeName = n.Name
		}
	}
	for i := range j.History {
		l := &j.History[i]
		past := &schedulerv1.Launch{Epoch: uint64(l.Epoch), StartedUnixNs: int64(l.StartedAt), EndedUnixNs: int64(l.EndedAt), Outcome: l.Outcome}
		for _, n := range l.Nodes {
			past.NodeIds = append(past.NodeIds, string(n.Node))
		}
		p.History = append(p.History, past)
	}
	if k := j.Kept; k != nil {
		p.Kept = &schedulerv1.Kept{Nodes: nodeNames(st, k.Nodes), StartUnixNs: int64(k.At), MadeUnixNs: int64(k.Made)}
	}
	p.AvoidedNodes = nodeNames(st, j.Avoid)
	for i, d := range j.Spec.Dependencies() {
		if j.Unmet&(1<<i) != 0 {
			p.Unmet = append(p.Unmet, dependencyToProto(d))
		}
	}
	return p
}

// nodeNames names nodes; one that was forgotten is named by its id.
func nodeNames(st *cluster.State, ids []cluster.NodeID) []string {
	var names []string
	for _, id := range ids {
		name := string(id)
		if n := st.Node(id); n != nil {
			name = n.Name
		}
		names = append(names, name)
	}
	return names
}

func progressToProto(p *cluster.Progress) *schedulerv1.Progress {
	if p == nil {
		return nil
	}
	out := &schedulerv1.Progress{Step: p.Step, TotalSteps: p.TotalSteps, DataEpoch: p.DataEpoch}
	if len(p.Metrics) > 0 {
		out.Metrics = make(map[string]float64, len(p.Metrics))
	}
	for _, m := range p.Metrics {
		out.Metrics[m.Name] = m.Value
	}
	return out
}

// nodeToProto converts a node, and adds what the leader's memory knows of it.
func nodeToProto(n *cluster.Node, t Telemetry) *schedulerv1.Node {
	p := &schedulerv1.Node{
		Id: string(n.ID), Name: n.Name, State: schedulerv1.NodeState(n.State), Reason: n.Reason,
		Address: n.Address, CpuMilli: n.CPUMilli, MemoryBytes: n.MemBytes, Version: n.Version,
		HeartbeatAgeMs: -1,
	}
	if t.Known {
		p.HeartbeatAgeMs, p.ClockSkewMs = t.HeartbeatAge.Milliseconds(), t.ClockSkew.Milliseconds()
		p.StorageProblem = t.Storage
	}
	if len(n.Labels)+len(n.Placed) > 0 {
		p.Labels = make(map[string]string, len(n.Labels)+len(n.Placed))
	}
	n.EachLabel(func(l cluster.Label) { p.Labels[l.Key] = l.Value })
	if len(n.Taints) > 0 {
		p.Taints = make(map[string]string, len(n.Taints))
	}
	for _, t := range n.Taints {
		p.Taints[t.Key] = t.Value
	}
	if d := n.Drain; d != nil {
		p.Drain = &schedulerv1.Drain{Reason: d.Reason, By: d.By, SinceUnixNs: int64(d.Since), DeadlineUnixNs: int64(d.Deadline)}
	}
	for i := range n.GPUs {
		g := &n.GPUs[i]
		out := &schedulerv1.GPU{
			Uuid: g.UUID, Type: g.Type, MemoryBytes: g.MemBytes, Healthy: g.Healthy, Reason: g.Reason,
			JobId: uint64(g.Job), Epoch: uint64(g.Epoch), Island: g.Island,
		}
		if g.NUMA != cluster.NUMAUnknown {
			out.NumaNode = &g.NUMA
		}
		for _, sh := range g.Shares {
			out.Shares = append(out.Shares, &schedulerv1.GPUShare{JobId: uint64(sh.Job), Epoch: uint64(sh.Epoch), Milli: sh.Milli})
		}
		if u, ok := t.Utilization[g.UUID]; ok {
			out.Utilization = &u
		}
		p.Gpus = append(p.Gpus, out)
	}
	return p
}

// compareNodeNames orders nodes for people.
func compareNodeNames(a, b *schedulerv1.Node) int { return strings.Compare(a.GetName(), b.GetName()) }
