package nodeagent

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/nodeagent/telemetry"
	"github.com/gangline/gangline/nodeagent/worker"
	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
)

const (
	// maxReported bounds a report; the scheduler takes 8192. Running workers are a few hundred, ends wait only for
	// their acknowledgement; what is left out is told when earlier ends are acknowledged.
	maxReported = 8000
	// maxMessage bounds the sentence about an end: a command may be as long as the kernel allows.
	maxMessage = 2048
)

// statuses are all workers that the leader should know of, in the order of keys: those whose process runs, and those
// that ended and whose end is not acknowledged. A worker whose process is still to come is not told of yet; but one of
// a former agent, of which no more is known yet (its supervisor is slow, or its last words met a full disk), may have
// been told of: left out, it would count as lost.
func (a *Agent) statuses() []*agentv1.WorkerStatus {
	var out []*agentv1.WorkerStatus
	known := map[reconcile.Key]bool{}
	for _, st := range a.workerStatuses() {
		key := reconcile.Key(st.Key)
		known[key] = true
		// An end that is not on disk yet could be forgotten by a power cut after the leader has acted on it. It is
		// told all the same: the process is gone in either case.
		if (st.State == worker.Starting && !a.found[key]) || st.Acked {
			continue
		}
		out = append(out, statusOf(st, a.sockets.Notes(key)))
	}
	for key, d := range a.declinedNow() {
		if known[key] || d.acked {
			continue
		}
		out = append(out, &agentv1.WorkerStatus{
			Key: keyOf(key), State: agentv1.WorkerState_WORKER_STATE_EXITED, GpuUuids: d.gpus,
			ExitCode: d.code, Signal: d.signal, Stopped: d.stopped, Message: cut(strings.ToValidUTF8(d.message, "?")),
		})
	}
	slices.SortFunc(out, func(x, y *agentv1.WorkerStatus) int {
		return cmp.Or(cmp.Compare(x.GetKey().GetJobId(), y.GetKey().GetJobId()),
			cmp.Compare(x.GetKey().GetEpoch(), y.GetKey().GetEpoch()), cmp.Compare(x.GetKey().GetRank(), y.GetKey().GetRank()))
	})
	return bounded(out, maxReported)
}

// bounded keeps all running workers and the first of the ended ones.
func bounded(all []*agentv1.WorkerStatus, limit int) []*agentv1.WorkerStatus {
	drop := len(all) - limit
	for i := len(all) - 1; i >= 0 && drop > 0; i-- {
		if all[i].GetState() != agentv1.WorkerState_WORKER_STATE_RUNNING {
			all = slices.Delete(all, i, i+1)
			drop--
		}
	}
	return all
}

// cut shortens a sentence without breaking a character.
func cut(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + "..."
}

// statusOf joins what the supervisor and the worker itself said. notes may be nil, and are the caller's own copy.
func statusOf(st worker.Status, notes *agentv1.WorkerStatus) *agentv1.WorkerStatus {
	out := &agentv1.WorkerStatus{
		Key: keyOf(reconcile.Key(st.Key)), State: agentv1.WorkerState_WORKER_STATE_RUNNING, GpuUuids: st.GPUs,
		CpuMs: int64((st.UserSeconds + st.SystemSeconds) * 1000), MaxRssBytes: st.MaxRSSBytes,
		RendezvousAddress: notes.GetRendezvousAddress(), RendezvousShare: notes.GetRendezvousShare(),
		RendezvousLeast: notes.GetRendezvousLeast(), RendezvousMet: notes.GetRendezvousMet(), RendezvousLost: notes.GetRendezvousLost(),
		Checkpoint: notes.GetCheckpoint(), Progress: notes.GetProgress(), Ring: notes.GetRing(),
		PeerLost: notes.GetPeerLost(), Stopped: st.Stopped(), LocalCheckpoint: notes.GetLocalCheckpoint(), LostStep: notes.GetLostStep(), OlderStart: notes.GetOlderStart(),
		CheckpointProblem: notes.GetCheckpointProblem(), CheckpointPace: notes.GetCheckpointPace(), Silent: notes.GetSilent(),
	}
	if st.State != worker.Exited {
		return out
	}
	out.State, out.Message = agentv1.WorkerState_WORKER_STATE_EXITED, st.Reason
	switch {
	case st.LaunchError != "":
		out.ExitCode, out.Message = launchFailed, st.LaunchError
	case st.Lost:
		out.State = agentv1.WorkerState_WORKER_STATE_LOST
	case st.Signal != "":
		out.Signal = int32(unix.SignalNum(st.Signal))
	default:
		out.ExitCode = int32(st.ExitCode) //nolint:gosec // 0 to 255
		if out.Message == fmt.Sprintf("exited with code %d", st.ExitCode) {
			out.Message = "" // the code says it
		}
	}
	if notes.GetPeerLost() {
		out.Message = notes.GetMessage()
	}
	out.Message = cut(strings.ToValidUTF8(out.Message, "?")) // protobuf sends nothing else
	return out
}

func keyOf(key reconcile.Key) *agentv1.WorkerKey {
	return &agentv1.WorkerKey{JobId: key.Job, Epoch: key.Epoch, Rank: int32(key.Rank)} //nolint:gosec // a rank came as int32
}

// hello introduces the node as it is now.
func (a *Agent) hello() *agentv1.Hello {
	record, fence := a.id.get(), a.id.highest()
	return &agentv1.Hello{
		NodeId: record.NodeID, Name: a.cfg.Name, BootId: a.machine.bootID, Incarnation: record.Incarnation,
		Address: a.Address(), Host: a.cfg.AdvertiseHost, Gpus: inventory(a.monitor.Latest()),
		CpuMilli: a.machine.cpuMilli, MemoryBytes: a.machine.memoryBytes, Labels: a.labels(), Taints: a.cfg.Taints, KeepsCopies: a.tiers.drainer != nil, Version: a.cfg.Version,
		ClusterId: record.ClusterID, Fence: &agentv1.Fence{Term: fence.Term, Index: fence.Index}, Workers: a.statuses(),
		AgentUnixMs: a.cfg.Clock().UnixMilli(),
	}
}

func inventory(r gpu.Reading) []*agentv1.GPU {
	var out []*agentv1.GPU
	for _, g := range r.GPUs {
		var numa *int32
		if n := int32(g.NUMANode); g.NUMANode != gpu.NUMAUnknown { //nolint:gosec // a node has few
			numa = &n
		}
		out = append(out, &agentv1.GPU{
			Uuid: g.UUID, Type: g.Type, MemoryBytes: g.MemBytes, Healthy: g.Health.Healthy, Reason: g.Health.Reason,
			Island: int32(g.Island), NumaNode: numa, //nolint:gosec // a node has few
		})
	}
	return out
}

// heartbeat is the node's sign of life, with the load of its GPUs.
func (a *Agent) heartbeat(sequence uint64) *agentv1.Heartbeat {
	now := time.Now()
	beat := &agentv1.Heartbeat{
		Sequence: sequence, AgentUnixMs: a.cfg.Clock().UnixMilli(), StorageProblem: cut(a.storage.Status(now).Problem), CheckpointUsage: a.uses.takeNew(now),
	}
	reading := a.monitor.Latest()
	if time.Since(reading.At) > 10*pollGPUs {
		return beat // the driver hangs: no reading is better than an old one
	}
	for _, s := range reading.Samples {
		if s.UtilPct != nil {
			beat.Gpus = append(beat.Gpus, &agentv1.GPUSample{Uuid: s.UUID, Utilization: *s.UtilPct / 100})
		}
	}
	return beat
}

// exitOf is how a worker ended, as metrics count it.
func exitOf(st worker.Status) telemetry.Exit {
	switch {
	case st.Lost:
		return telemetry.ExitLost
	case st.Stopped():
		return telemetry.ExitStopped
	case st.Signal != "":
		return telemetry.ExitKilled
	case st.Succeeded():
		return telemetry.ExitSucceeded
	}
	return telemetry.ExitFailed
}
