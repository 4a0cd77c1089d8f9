package api

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// Bounds of what one agent may say.
const (
	maxWorkersReported = 8192 // of one report; a node of 1024 GPUs with 7 epochs' exits to acknowledge
	maxCheckpointPath  = 4096 // bytes, the most that Linux takes
	maxMetricName      = 64   // bytes of a metric's name; longer ones, and those with control characters, are left out
)

// statusesFromProto is an agent's list of workers as control reads it. What is
// not fit for the state is bounded or left out. at is the agent's clock when it
// told, Unix milliseconds: only differences to it count. 0: it does not say.
func statusesFromProto(in []*agentv1.WorkerStatus, at int64) []control.WorkerStatus {
	out := make([]control.WorkerStatus, 0, len(in))
	for _, s := range in {
		w := control.WorkerStatus{
			Key: keyOf(s.GetKey()), State: workerState(s.GetState()), ExitCode: s.GetExitCode(), Signal: s.GetSignal(),
			PeerLost: s.GetPeerLost(), Stopped: s.GetStopped(), Message: cutText(s.GetMessage(), cluster.MaxReason),
			GPUs: s.GetGpuUuids(), Silent: s.GetSilent(), Arrived: usableAddress(s.GetRendezvousAddress()) && s.GetRendezvousMet() == 0,
		}
		if w.Arrived {
			w.Asks, w.Names = s.GetRendezvousLeast(), s.GetRendezvousLost()
		}
		if w.Key.Rank == 0 {
			w.Progress = progressFromProto(s.GetProgress())
		}
		if c := s.GetCheckpoint(); c != nil && checkText("path", c.GetPath(), maxCheckpointPath) == nil {
			w.Checkpoint = &cluster.Checkpoint{
				Step: c.GetStep(), Path: c.GetPath(), Bytes: c.GetBytes(), Cost: atLeast0(c.GetCostMs()), Took: atLeast0(c.GetTookMs()),
			}
			if checkText("remote", c.GetRemote(), maxCheckpointPath) == nil {
				w.Checkpoint.Remote, w.Checkpoint.RemoteStep = c.GetRemote(), c.GetRemoteStep()
			}
			if saved := c.GetSavedUnixMs(); saved > 0 && at > saved {
				w.CheckpointAge = atLeast0(at - saved)
			}
		}
		out = append(out, w)
	}
	return out
}

func keyOf(k *agentv1.WorkerKey) control.WorkerKey {
	return control.WorkerKey{Job: cluster.JobID(k.GetJobId()), Epoch: cluster.Epoch(k.GetEpoch()), Rank: cluster.Rank(k.GetRank())}
}

func workerState(s agentv1.WorkerState) cluster.WorkerState {
	switch s {
	case agentv1.WorkerState_WORKER_STATE_RUNNING:
		return cluster.WorkerRunning
	case agentv1.WorkerState_WORKER_STATE_EXITED:
		return cluster.WorkerExited
	case agentv1.WorkerState_WORKER_STATE_LOST:
		return cluster.WorkerLost
	default:
		return 0
	}
}

// progressFromProto bounds and orders what a worker said.
func progressFromProto(p *agentv1.Progress) *cluster.Progress {
	if p == nil {
		return nil
	}
	out := &cluster.Progress{Step: p.GetStep(), TotalSteps: p.GetTotalSteps(), DataEpoch: p.GetDataEpoch()}
	for _, name := range slices.Sorted(maps.Keys(p.GetMetrics())) {
		if name != "" && checkText("metric", name, maxMetricName) == nil && len(out.Metrics) < cluster.MaxMetrics {
			out.Metrics = append(out.Metrics, cluster.Metric{Name: name, Value: p.GetMetrics()[name]})
		}
	}
	return out
}

// cutText bounds a text at a character's boundary and makes one line of it that
// steers no terminal.
func cutText(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "")
}
