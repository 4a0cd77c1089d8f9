package cluster

import "time"

// JobState is where a job is in its life. See Legal for the edges.
type JobState uint8

// Job states. The zero value is invalid.
const (
	Pending   JobState = 1 // waits for GPUs or for its back-off to end
	Starting  JobState = 2 // holds GPUs; not all workers have started
	Running   JobState = 3 // all workers have started
	Stopping  JobState = 4 // workers are asked to stop; Next says what follows
	Succeeded JobState = 5 // final
	Failed    JobState = 6 // final
	Cancelled JobState = 7 // final
)

var jobStateNames = [...]string{"Invalid", "Pending", "Starting", "Running", "Stopping", "Succeeded", "Failed", "Cancelled"} //nolint:gochecknoglobals // table

// String returns the state's name as users see it.
func (s JobState) String() string {
	if int(s) < len(jobStateNames) {
		return jobStateNames[s]
	}
	return jobStateNames[0]
}

// Final reports whether the job will never change again.
func (s JobState) Final() bool { return s >= Succeeded }

// Holding reports whether a job in this state holds GPUs.
func (s JobState) Holding() bool { return s == Starting || s == Running || s == Stopping }

// JobStates lists the valid states in order.
func JobStates() []JobState {
	return []JobState{Pending, Starting, Running, Stopping, Succeeded, Failed, Cancelled}
}

// Legal reports whether a job may go from one state to another in one command.
func Legal(from, to JobState) bool {
	switch from {
	case Pending:
		return to == Starting || to == Cancelled
	case Starting:
		return to == Running || to == Stopping || to == Pending || to.Final()
	case Running:
		return to == Stopping || to == Pending || to.Final()
	case Stopping:
		return to == Pending || to.Final()
	default:
		return false
	}
}

// WorkerState is where a worker is in its life.
type WorkerState uint8

// Worker states, in the only order in which a worker passes through them.
const (
	WorkerAssigned WorkerState = 1 // given to a node, not yet started
	WorkerRunning  WorkerState = 2 // its process runs
	WorkerExited   WorkerState = 3 // its process ended or could not start
	WorkerLost     WorkerState = 4 // its node or supervisor was lost; how it ended is unknown
)

var workerStateNames = [...]string{"Invalid", "Assigned", "Running", "Exited", "Lost"} //nolint:gochecknoglobals // table

// String returns the state's name as users see it.
func (s WorkerState) String() string {
	if int(s) < len(workerStateNames) {
		return workerStateNames[s]
	}
	return workerStateNames[0]
}

// Ended reports whether the worker holds its GPUs no longer.
func (s WorkerState) Ended() bool { return s >= WorkerExited }

// Worker is one training process of the current or last epoch.
type Worker struct { // small fields stand together: there may be a hundred thousand of these
	Node     NodeID
	GPUs     []string // UUIDs, at least one
	Message  string   // why it ended or could not start
	Rank     Rank
	ExitCode int16 // if exited and Signal is 0; systems know 0..255
	Signal   int16
	State    WorkerState
	PeerLost bool  // it ended because a peer was lost, by its own word
	Left     bool  // it ended and the gang went on without it, or had no work for it any more
	Blamed   bool  // the first of its gang that failed of itself
	Joined   int32 // 0: it was there from the start; waitsToJoin; else the first formation of which it is a member
	Asks     int32 // the formation that it asks for, as its ring broke; 0: none; or asksNothing
	Names    int32 // whom it lost then, rank + 1; 0: nobody; or NamesAbsent
}

// waitsToJoin is Worker.Joined of one that takes the place of another and has not yet come to where the others meet.
const waitsToJoin = -1

// Members lists who makes up the ring, in its order. Where nobody has left or joined it is all workers, ended ones included: those that still
// wait for others' addresses are to hear of the same set as those that had them early.
func (j *Job) Members() []Rank {
	out := make([]Rank, 0, len(j.Workers))
	for i := range j.Workers {
		if w := &j.Workers[i]; w.member() || (j.Reformed == 0 && w.Joined == 0) {
			out = append(out, w.Rank)
		}
	}
	return out
}

// HeldType is the type of the GPUs that a job holds, of which a gang has one; "" if it holds none, or its nodes came back without them.
func (s *State) HeldType(j *Job) string {
	for i := range j.Workers {
		w := &j.Workers[i]
		if len(w.GPUs) == 0 {
			continue // another worker has taken them over
		}
		if n := s.Node(w.Node); n != nil {
			if g := n.FindGPU(w.GPUs[0]); g >= 0 {
				return n.GPUs[g].Type
			}
		}
		return ""
	}
	return ""
}

// member reports whether the worker runs, or will, as one of those that make up the ring.
func (w *Worker) member() bool { return !w.State.Ended() && w.Joined != waitsToJoin }

// Joins reports whether the worker is to become a member.
func (w *Worker) Joins() bool { return !w.State.Ended() && w.Joined == waitsToJoin }

// Formation numbers the sets of workers that make up the ring of an epoch, from 1. It grows when the gang goes on without one, or one joins.
func (j *Job) Formation() int32 { return j.Reformed + 1 }

// failed reports whether the worker ended other than by exit code 0.
func (w *Worker) failed() bool {
	return w.State == WorkerLost || (w.State == WorkerExited && (w.ExitCode != 0 || w.Signal != 0))
}

// Checkpoint is the newest checkpoint that a job committed.
type Checkpoint struct {
	Step       int64
	Epoch      Epoch
	Path       string
	Bytes      int64
	RecordedAt Time          // when it was committed, as far as its agent could tell
	Cost       time.Duration // how long the save held up the training, as measured; 0: not known
	Took       time.Duration // from its start until it was durable; 0: not known
	Remote     string        // newest copy in the object store, an address; empty: none
	RemoteStep int64         // of that copy
	Covers     int64         // what the job had attained when it was recorded, milli-GPU-milliseconds
}

// Metric is one named number that a worker reported.
type Metric struct {
	Name  string
	Value float64
}

// Progress is what rank 0 last said about itself. In State it is recorded only
// with a worker's end; while a job runs it lives in the leader's memory.
type Progress struct {
	Step, TotalSteps int64
	DataEpoch        float64
	Metrics          []Metric // sorted by name
}

// StopCause says why a job was asked to stop.
type StopCause uint8

// Stop causes. The zero value means that nobody asked.
const (
	StopCancel      StopCause = 1  // a person or a program cancelled it
	StopTimeLimit   StopCause = 2  // it outlived its time limit
	StopFailure     StopCause = 3  // one of its workers failed
	StopNodeLost    StopCause = 4  // one of its nodes was lost
	StopLaunchStuck StopCause = 5  // its workers did not all start in time
	StopPreempt     StopCause = 6  // another job needs the GPUs
	StopResize      StopCause = 7  // it starts again at once with more or fewer GPUs
	StopMove        StopCause = 8  // it starts again elsewhere, so that another job fits where it was
	StopDrain       StopCause = 9  // its node is being emptied
	StopDone        StopCause = 10 // its work is done, and a worker that was to join has nothing to do
)

// yields reports whether the job did nothing wrong: it gave its GPUs back
// because it was asked to, and waits for new ones.
func (c StopCause) yields() bool {
	return c == StopPreempt || c == StopResize || c == StopMove || c == StopDrain
}

// Launch is an epoch that has ended: where it ran, so that its output can be
// found, and how it ended.
type Launch struct {
	Epoch     Epoch
	Nodes     []LaunchNode // in order of their ranks
	StartedAt Time
	EndedAt   Time
	Outcome   string
}

// LaunchNode is a node of an ended epoch. Ranks run on through the nodes.
type LaunchNode struct {
	Node    NodeID
	Workers int32
}

// NodeOf returns the node on which a rank ran, or "".
func (l *Launch) NodeOf(r Rank) NodeID {
	for _, n := range l.Nodes {
		if r < Rank(n.Workers) {
			return n.Node
		}
		r -= Rank(n.Workers)
	}
	return ""
}

// WorldSize is the number of workers that the epoch had.
func (l *Launch) WorldSize() int {
	n := 0
	for _, p := range l.Nodes {
		n += int(p.Workers)
	}
	return n
}

// Job is a job and what became of it so far. A Job in a State is replaced,
// never edited, but for one that no snapshot has yet: there its reason, what is
// expected of it, and its workers' and its own progress through an epoch, may be
// written into it. A start and a stop always make a new one.
type Job struct { // small fields stand together: a cluster may have a hundred thousand of these
	ID        JobID
	Spec      *JobSpec // shared, never edited
	User      string
	RequestID string
	Reason    string // why it is in this state, a sentence

	State    JobState
	Stop     StopCause
	Blamed   bool   // a worker of this epoch failed of itself
	Bin      int8   // of the service that it has had, see History
	Level    int32  // of the GPU time that it is expected to need yet, see LevelSpan
	Unmet    uint32 // dependencies that are not met yet, by their place in Spec.After: it may not start while there are any
	Failures int32  // counted against Spec.Retries
	Epoch    Epoch
	Array    JobID    // the array's first member, or 0
	Workers  []Worker // current or last epoch, by rank

	NodeRanks  []NodeID // the gang's nodes in order of their ranks
	StopReason string
	Checkpoint *Checkpoint
	Progress   *Progress
	Kept       *Kept // what is kept free for it, or nil

	Requeues    int32 // not counted
	Reformed    int32 // how often this epoch's set of workers has changed
	Preemptions int32 // epochs that ended because another job needed the GPUs
	ArrayIndex  int32 // GANGLINE_ARRAY_INDEX

	NotBefore   Time // end of back-off, or 0
	SubmittedAt Time
	ReadyAt     Time // since when it might have started: its submission, or when the last job ended that it was to wait for
	PendingAt   Time // last became Pending
	StartedAt   Time // this epoch got its GPUs
	RunningAt   Time // this epoch's last worker started
	FinishedAt  Time
	PreemptedAt Time // when it was last asked to stop so that another job can start

	FinishSeq uint64        // order among final jobs
	History   []Launch      // ended epochs, oldest first, at most MaxHistory
	Avoid     []NodeID      // nodes on which it failed of itself or that were lost under it, newest last, at most MaxAvoid
	Expected  time.Duration // expected length of its next epoch, or of what is left of this one
	Predicted int64         // GPU-seconds that it was expected to need when it was submitted
	Attained  int64         // milli-GPU-milliseconds that its ended epochs have held
	Rate      int64         // weighted milli-GPUs that it charges its account while it holds them
}

// Kept is the reservation of a Pending job: nodes whose free GPUs are kept for
// it. Jobs that end before At may still use them.
type Kept struct {
	Nodes []NodeID
	At    Time // when it is expected to start
	Made  Time // when the reservation was made
}

// Held is the number of GPUs that the job's workers have, ended ones included.
func (j *Job) Held() int32 {
	n := 0
	for i := range j.Workers {
		n += len(j.Workers[i].GPUs)
	}
	return int32(n) //nolint:gosec // at most MaxGPUs
}

// Back-off after a failed epoch: 1 s, 2 s, 4 s ... 5 min. Chosen so that a job
// which dies at once cannot occupy the planner, and a transient fault of
// shared storage is ridden out.
const (
	backoffBase = time.Second
	backoffMax  = 5 * time.Minute
)

func backoff(failures int32) time.Duration {
	if failures < 1 {
		return 0
	}
	d := backoffBase
	for i := int32(1); i < failures && d < backoffMax; i++ {
		d *= 2
	}
	return min(d, backoffMax)
}

// worldSize is the number of workers that spec makes on the given numbers of nodes and GPUs.
func (s *JobSpec) worldSize(nodes, gpus int) int {
	if s.Launch == LaunchPerNode {
		return nodes
	}
	return gpus
}
