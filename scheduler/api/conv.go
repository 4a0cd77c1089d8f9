package api

import (
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
		Command: slices.Clone(p.GetCommand()), Dir: p.GetDir(),
		Retries: p.GetRetries(), Preemptible: p.GetPreemptible(),
		Warn: cluster.DefaultWarn, Grace: cluster.DefaultGrace, KeepCkpts: p.GetCheckpointKeep(),
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

// clampByte keeps an unknown enum value invalid instead of letting it wrap.
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
		Command: s.Command, Dir: s.Dir, Retries: s.Retries, Preemptible: s.Preemptible,
		WarnMs: &warn, GraceMs: &grace, CheckpointKeep: s.KeepCkpts,
	}
	for _, e := range s.Env {
		p.Env = append(p.Env, &schedulerv1.EnvVar{Name: e.Name, Value: e.Value})
	}
	return p
}

// jobToProto converts a job without its workers. The result shares strings and
// lists with the state: it is to be sent, not edited.
func jobToProto(j *cluster.Job) *schedulerv1.Job {
	p := &schedulerv1.Job{
		Id: uint64(j.ID), Spec: specToProto(j.Spec), User: j.User,
		State: schedulerv1.JobState(j.State), Reason: j.Reason, Epoch: uint64(j.Epoch),
		Progress:        progressToProto(j.Progress),
		SubmittedUnixNs: int64(j.SubmittedAt), PendingUnixNs: int64(j.PendingAt),
		StartedUnixNs: int64(j.StartedAt), FinishedUnixNs: int64(j.FinishedAt),
		Failures: j.Failures, NotBeforeUnixNs: int64(j.NotBefore), Requeues: j.Requeues,
	}
	if c := j.Checkpoint; c != nil {
		p.Checkpoint = &schedulerv1.Checkpoint{
			Step: c.Step, Epoch: uint64(c.Epoch), Path: c.Path, RecordedUnixNs: int64(c.RecordedAt),
		}
	}
	return p
}

// wholeJobToProto converts a job with its workers and its ended epochs.
func wholeJobToProto(st *cluster.State, j *cluster.Job) *schedulerv1.Job {
	p := jobToProto(j)
	p.Workers = make([]*schedulerv1.Worker, len(j.Workers))
	for i := range j.Workers {
		w := &j.Workers[i]
		p.Workers[i] = &schedulerv1.Worker{
			Rank: int32(w.Rank), NodeId: string(w.Node), GpuUuids: w.GPUs,
			State: schedulerv1.WorkerState(w.State), ExitCode: w.ExitCode, Signal: w.Signal, Message: w.Message, Blamed: w.Blamed,
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
	return p
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
	}
	if len(n.Labels) > 0 {
		p.Labels = make(map[string]string, len(n.Labels))
	}
	for _, l := range n.Labels {
		p.Labels[l.Key] = l.Value
	}
	for i := range n.GPUs {
		g := &n.GPUs[i]
		out := &schedulerv1.GPU{
			Uuid: g.UUID, Type: g.Type, MemoryBytes: g.MemBytes, Healthy: g.Healthy, Reason: g.Reason,
			JobId: uint64(g.Job), Epoch: uint64(g.Epoch),
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
