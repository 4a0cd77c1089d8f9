package control

import (
	"maps"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// reportBatch is how many workers go into one command: with their messages at
// most about 0.5 MiB, half of what a log entry holds.
const reportBatch = 256

// msgVanished is why a worker is Lost that its own agent no longer lists.
const msgVanished = "the node's agent no longer knows this worker"

// WorkerKey names one worker, once and for all.
type WorkerKey struct {
	Job   cluster.JobID
	Epoch cluster.Epoch
	Rank  cluster.Rank
}

// WorkerStatus is what an agent says of one worker. Texts are fit for the
// state: bounded, and without control characters. Zero fields say nothing.
type WorkerStatus struct {
	Key           WorkerKey
	State         cluster.WorkerState // WorkerRunning, WorkerExited or WorkerLost; 0: one that this release does not know
	ExitCode      int32
	Signal        int32
	PeerLost      bool
	Stopped       bool
	Message       string
	GPUs          []string            // UUIDs
	Checkpoint    *cluster.Checkpoint // the newest that it committed: Step, Path and Bytes are read
	CheckpointAge time.Duration       // how long ago that was, at least 0
	Arrived       bool                // it has asked for its rendezvous
	Asks          int32               // while it waits for it: the least formation that will do
	Names         int32               // whom it lost before, rank + 1; 0: nobody
	Silent        bool                // its process lives and does not answer its agent
	Progress      *cluster.Progress   // its last word; read of rank 0 only
}

// ProgressFunc returns what a job's rank 0 last said in an epoch, or nil.
type ProgressFunc func(cluster.JobID, cluster.Epoch) *cluster.Progress

// News compares an agent's full list of workers with the state and returns the
// commands that make the state say the same: none if it does already.
// Checkpoints come first: an end may end the epoch that they belong to.
// progress serves ends that come without a last word, and may be nil.
func News(s *cluster.State, node cluster.NodeID, workers []WorkerStatus, progress ProgressFunc) []cluster.Command {
	n := s.Node(node)
	if n == nil {
		return nil
	}
	var reports []cluster.WorkerReport
	listed := make(map[WorkerKey]bool, len(workers))
	for i := range workers {
		listed[workers[i].Key] = true
		if r, isNew := workerNews(s, n, &workers[i], progress); isNew {
			reports = append(reports, r)
		}
	}
	reports = append(reports, vanished(s, n, listed)...)
	cmds := newCheckpoints(s, node, workers)
	for batch := range slices.Chunk(reports, reportBatch) {
		cmds = append(cmds, &cluster.ReportWorkers{Node: node, Workers: batch})
	}
	return cmds
}

// workerNews is what the state does not know of one worker yet.
func workerNews(s *cluster.State, n *cluster.Node, u *WorkerStatus, progress ProgressFunc) (cluster.WorkerReport, bool) {
	r := cluster.WorkerReport{
		Job: u.Key.Job, Epoch: u.Key.Epoch, Rank: u.Key.Rank,
		State: u.State, ExitCode: u.ExitCode, Signal: u.Signal,
		PeerLost: u.PeerLost, Stopped: u.Stopped, Message: u.Message,
	}
	if r.State.Ended() && isStale(n, u.Key) {
		return r, true
	}
	w := WorkerOn(s, n.ID, u.Key)
	if w == nil || r.State == 0 || w.State.Ended() {
		return r, false
	}
	r.Arrived = u.Arrived && r.State == cluster.WorkerRunning && w.Joins()
	if j := s.Job(u.Key.Job); r.State == cluster.WorkerRunning && j.State == cluster.Running && !w.Joins() {
		askNews(j, w, u, &r)
	}
	if r.State <= w.State && !r.Arrived && r.Asks == 0 && r.Silence == 0 {
		return r, false
	}
	if r.Rank == 0 && r.State.Ended() {
		if r.Progress = u.Progress; r.Progress == nil && progress != nil {
			r.Progress = progress(r.Job, r.Epoch)
		}
	}
	return r, true
}

// askNews adds to a report what is new of a member's wish for another formation, or of its silence. Who waits at the rendezvous of this formation while
// a member is silent asks for the next one: this one would never come about.
func askNews(j *cluster.Job, w *cluster.Worker, u *WorkerStatus, r *cluster.WorkerReport) {
	if j.Spec.OnFailure == cluster.FailureShrinks && u.Silent != w.Silent() {
		r.Silence = cluster.SpokeAgain
		if u.Silent {
			r.Silence = cluster.FellSilent
		}
		return
	}
	asks := u.Asks
	if u.Arrived && j.AwaitsSilent() {
		asks = max(asks, j.Formation()+1)
	}
	if !u.Silent && asks > j.Formation() && (asks > w.Asks || (asks == w.Asks && w.Names == 0 && u.Names != 0)) {
		r.Asks, r.Names = asks, u.Names
	}
}

// vanished reports as lost the workers that ran on a node and that its agent
// no longer lists: those that the state gave up, and those that it counts on.
func vanished(s *cluster.State, n *cluster.Node, listed map[WorkerKey]bool) []cluster.WorkerReport {
	var reports []cluster.WorkerReport
	gone := func(k WorkerKey) {
		if !listed[k] {
			reports = append(reports, cluster.WorkerReport{Job: k.Job, Epoch: k.Epoch, Rank: k.Rank, State: cluster.WorkerLost, Message: msgVanished})
		}
	}
	for i := range n.Stale {
		gone(keyOf(&n.Stale[i]))
	}
	for _, j := range holdersOn(s, n) {
		for i := range j.Workers {
			if w := &j.Workers[i]; w.Node == n.ID && w.State == cluster.WorkerRunning {
				gone(WorkerKey{j.ID, j.Epoch, w.Rank})
			}
		}
	}
	return reports
}

// newCheckpoints records, for each job, the newest checkpoint of its present
// epoch that is newer than what the state has.
func newCheckpoints(s *cluster.State, node cluster.NodeID, workers []WorkerStatus) []cluster.Command {
	newest := map[cluster.JobID]*cluster.RecordCheckpoint{}
	for i := range workers {
		c, k := workers[i].Checkpoint, workers[i].Key
		if c == nil || WorkerOn(s, node, k) == nil {
			continue
		}
		j := s.Job(k.Job)
		if old := j.Checkpoint; old != nil && old.Epoch == j.Epoch && old.Step >= c.Step && (c.Remote == "" || c.Remote == old.Remote) {
			continue
		}
		if have := newest[j.ID]; have == nil || have.Step < c.Step {
			newest[j.ID] = &cluster.RecordCheckpoint{
				Job: j.ID, Epoch: j.Epoch, Step: c.Step, Path: c.Path, Bytes: c.Bytes, Cost: c.Cost, Took: c.Took, Remote: c.Remote, RemoteStep: c.RemoteStep,
				Age: workers[i].CheckpointAge,
			}
		}
	}
	var cmds []cluster.Command
	for _, id := range slices.Sorted(maps.Keys(newest)) {
		cmds = append(cmds, newest[id])
	}
	return cmds
}

// WorkerOn returns a worker of its job's present epoch, if the job holds GPUs
// and the worker is on the node; else nil. It is not to be edited.
func WorkerOn(s *cluster.State, node cluster.NodeID, k WorkerKey) *cluster.Worker {
	j := s.Job(k.Job)
	if j == nil || j.Epoch != k.Epoch || !j.State.Holding() || k.Rank < 0 || int(k.Rank) >= len(j.Workers) {
		return nil
	}
	if w := &j.Workers[k.Rank]; w.Node == node {
		return w
	}
	return nil
}

// isStale reports whether the state has given up a worker that still ran.
func isStale(n *cluster.Node, k WorkerKey) bool {
	return slices.ContainsFunc(n.Stale, func(r cluster.WorkerRef) bool { return keyOf(&r) == k })
}

func keyOf(r *cluster.WorkerRef) WorkerKey { return WorkerKey{r.Job, r.Epoch, r.Rank} }
