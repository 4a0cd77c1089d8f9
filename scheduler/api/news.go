package api

import (
	"maps"
	"slices"
	"strings"
	"unicode"

	agentv1 "github.com/gangline/gangline/proto/gangline/agent/v1"
	"github.com/gangline/gangline/scheduler/cluster"
)

// Bounds of what one agent may say.
const (
	maxWorkersReported = 8192 // of one report; a node of 1024 GPUs with 7 epochs' exits to acknowledge
	reportBatch        = 256  // workers in one command: with their messages at most about 0.5 MiB
	maxMetricName      = 64   // bytes of a metric's name; longer ones, and those with control characters, are left out
)

// msgVanished is why a worker is Lost that its own agent no longer lists.
const msgVanished = "the node's agent no longer knows this worker"

// workerKey names one worker.
type workerKey struct {
	job   cluster.JobID
	epoch cluster.Epoch
	rank  cluster.Rank
}

func keyOf(k *agentv1.WorkerKey) workerKey {
	return workerKey{cluster.JobID(k.GetJobId()), cluster.Epoch(k.GetEpoch()), cluster.Rank(k.GetRank())}
}

// progressFunc returns what a job's rank 0 last said in an epoch, or nil.
type progressFunc func(cluster.JobID, cluster.Epoch) *cluster.Progress

// news compares an agent's full list of workers with the state and returns the
// commands that make the state say the same: none if it does already. It is
// pure. Checkpoints come first: an exit may end the epoch that they belong to.
func news(st *cluster.State, id cluster.NodeID, workers []*agentv1.WorkerStatus, progress progressFunc) []cluster.Command {
	n := st.Node(id)
	if n == nil {
		return nil
	}
	cmds := newCheckpoints(st, id, workers)
	var reports []cluster.WorkerReport
	listed := make(map[workerKey]bool, len(workers))
	for _, s := range workers {
		listed[keyOf(s.GetKey())] = true
		if r, isNew := workerNews(st, n, s, progress); isNew {
			reports = append(reports, r)
		}
	}
	for _, w := range n.Stale {
		if !listed[workerKey{w.Job, w.Epoch, w.Rank}] {
			reports = append(reports, cluster.WorkerReport{Job: w.Job, Epoch: w.Epoch, Rank: w.Rank, State: cluster.WorkerLost, Message: msgVanished})
		}
	}
	for _, j := range holdersOn(st, n) {
		for i := range j.Workers {
			w := &j.Workers[i]
			if w.Node == id && w.State == cluster.WorkerRunning && !listed[workerKey{j.ID, j.Epoch, w.Rank}] {
				reports = append(reports, cluster.WorkerReport{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, State: cluster.WorkerLost, Message: msgVanished})
			}
		}
	}
	for batch := range slices.Chunk(reports, reportBatch) {
		cmds = append(cmds, &cluster.ReportWorkers{Node: id, Workers: batch})
	}
	return cmds
}

// workerNews is what the state does not know of one worker yet.
func workerNews(st *cluster.State, n *cluster.Node, s *agentv1.WorkerStatus, progress progressFunc) (cluster.WorkerReport, bool) {
	k := s.GetKey()
	r := cluster.WorkerReport{
		Job: cluster.JobID(k.GetJobId()), Epoch: cluster.Epoch(k.GetEpoch()), Rank: cluster.Rank(k.GetRank()),
		State: workerState(s.GetState()), ExitCode: s.GetExitCode(), Signal: s.GetSignal(),
		PeerLost: s.GetPeerLost(), Stopped: s.GetStopped(), Message: cutText(s.GetMessage(), cluster.MaxReason),
	}
	if r.State.Ended() && isStale(n, k) {
		return r, true
	}
	w := workerOn(st.Job(r.Job), n.ID, k)
	if w == nil || r.State == 0 || w.State.Ended() || r.State <= w.State {
		return r, false
	}
	if r.Rank == 0 && r.State.Ended() {
		if r.Progress = progressFromProto(s.GetProgress()); r.Progress == nil {
			r.Progress = progress(r.Job, r.Epoch)
		}
	}
	return r, true
}

// newCheckpoints records, for each job, the newest checkpoint of its present
// epoch that is newer than what the state has.
func newCheckpoints(st *cluster.State, id cluster.NodeID, workers []*agentv1.WorkerStatus) []cluster.Command {
	newest := map[cluster.JobID]*cluster.RecordCheckpoint{}
	for _, s := range workers {
		c, k := s.GetCheckpoint(), s.GetKey()
		j := st.Job(cluster.JobID(k.GetJobId()))
		if c == nil || checkText("path", c.GetPath(), maxCheckpointPath) != nil || workerOn(j, id, k) == nil {
			continue
		}
		if old := j.Checkpoint; old != nil && old.Epoch == j.Epoch && old.Step >= c.GetStep() {
			continue
		}
		if have := newest[j.ID]; have == nil || have.Step < c.GetStep() {
			newest[j.ID] = &cluster.RecordCheckpoint{Job: j.ID, Epoch: j.Epoch, Step: c.GetStep(), Path: c.GetPath(), Bytes: c.GetBytes()}
		}
	}
	var cmds []cluster.Command
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		cmds = append(cmds, newest[id])
	}
	return cmds
}

// maxCheckpointPath is the longest path that Linux takes.
const maxCheckpointPath = 4096

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
