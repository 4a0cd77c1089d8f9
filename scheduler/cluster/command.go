package cluster

import "time"

// Command is one change of the state. The list of kinds is closed: to add one,
// touch (1) this file, (2) apply.go's switch and its function, (3) codec.go's
// commandKinds and the type's code method, (4) Version, if older servers
// would not know it, (5) the property test's generator, (6) the simulator's
// workload if users can cause it.
type Command interface {
	kind() Kind
	code(c *coder)
}

// Kind is a command's number in the log. Numbers are never reused.
type Kind uint8

// Kinds of commands.
const (
	KindInit             Kind = 1
	KindSubmitJob        Kind = 2
	KindCancelJob        Kind = 3
	KindStartJob         Kind = 4
	KindExplainJob       Kind = 5
	KindRegisterNode     Kind = 6
	KindLoseNode         Kind = 7
	KindReportWorkers    Kind = 8
	KindEvictJob         Kind = 9
	KindRecordCheckpoint Kind = 10
	KindForgetJobs       Kind = 11
	KindForgetNode       Kind = 12
	KindSetPolicy        Kind = 13
	KindDrainNode        Kind = 14
	KindKeepNodes        Kind = 15
	KindExplainJobs      Kind = 16
)

// Init gives an empty state its identity. The first leader proposes it.
type Init struct {
	ClusterID string
	Version   uint32
}

// SubmitJob makes a Pending job, once for each RequestID.
type SubmitJob struct {
	RequestID string // 1..MaxRequestID bytes
	User      string
	Spec      *JobSpec
}

// CancelJob stops a job for good. Cancelling a final job changes nothing.
type CancelJob struct {
	Job    JobID
	By     string
	Reason string
}

// StartJob gives a Pending job its GPUs. Apply re-checks all of it.
type StartJob struct {
	Job     JobID
	Epoch   Epoch // the epoch to start: the job's epoch + 1
	Workers []Placement
}

// Placement is where one worker of a gang goes.
type Placement struct {
	Rank Rank
	Node NodeID
	GPUs []string // UUIDs
}

// ExplainJob records why a Pending job waits.
type ExplainJob struct {
	Job    JobID
	Reason string
}

// RegisterNode makes a node known, or updates what is known of it, and gives
// it its lease. Running lists all workers that still run on it.
type RegisterNode struct {
	Node    Node // only the agent's own facts are read: identity, addresses, inventory
	Running []WorkerRef
}

// LoseNode declares that a node's lease ran out. Incarnation guards against
// losing an agent that has come back meanwhile.
type LoseNode struct {
	Node        NodeID
	Incarnation uint64
	Reason      string
}

// ReportWorkers is what an agent says of its workers.
type ReportWorkers struct {
	Node    NodeID
	Workers []WorkerReport
}

// WorkerReport is the state of one worker on the reporting node.
type WorkerReport struct {
	Job      JobID
	Epoch    Epoch
	Rank     Rank
	State    WorkerState // WorkerRunning, WorkerExited or WorkerLost
	ExitCode int32
	Signal   int32
	PeerLost bool // by its own word it ended because a peer was lost
	Stopped  bool // it ended after it had been asked to stop
	Message  string
	Progress *Progress // final progress of an ended rank 0, else nil
	Arrived  bool      // a worker that is to join has come to where the others meet
	Asks     int32     // the least formation that it waits for; 0: it does not wait
	Names    int32     // whom it lost, rank + 1; 0: nobody
	Silence  Silence   // what is new of whether its process answers its agent
}

// EvictJob stops a job's workers and takes the GPUs back; the job then goes
// back to Pending, or to Failed if Cause is StopTimeLimit.
type EvictJob struct {
	Job    JobID
	Epoch  Epoch
	Cause  StopCause
	Reason string
}

// RecordCheckpoint remembers the newest committed checkpoint of a job.
type RecordCheckpoint struct {
	Job   JobID
	Epoch Epoch // of the writer; an older one than the job's is refused
	Step  int64
	Path  string
	Bytes int64

	Cost, Took time.Duration // see Checkpoint
	Remote     string
	RemoteStep int64

	// Age is how long ago it was committed, at least 0: what an agent tells of late is no better for that. It counts for a new checkpoint
	// alone, and up to the start of the epoch.
	Age time.Duration
}

// ForgetJobs drops final jobs from the state, oldest first (history is bounded).
type ForgetJobs struct {
	Jobs []JobID
}

// ForgetNode drops a Lost node that holds nothing.
type ForgetNode struct {
	Node NodeID
}

// SetPolicy replaces the policy.
type SetPolicy struct {
	Policy *Policy
	By     string
	// Was is the PolicyIndex that the admin saw; another one is a Conflict. 0
	// and Any: whatever holds now.
	Was uint64
	Any bool
}

// DrainNode lets a node take no new jobs, or lets it take jobs again.
type DrainNode struct {
	Node     NodeID
	Reason   string
	By       string
	Deadline Time // jobs still there then are moved away; 0: they may end by themselves
	Off      bool // the drain ends
}

// KeepNodes replaces what is kept free for a Pending job. It holds until the
// job starts, ends, or is given another.
type KeepNodes struct {
	Job   JobID
	Nodes []NodeID // none: nothing is kept any more
	At    Time     // when it is expected to start
}

// ExplainJobs records why Pending jobs wait, one reason for all. Jobs that are
// no longer pending are passed over.
type ExplainJobs struct {
	Jobs   []JobID
	Reason string
}

func (*SetPolicy) kind() Kind        { return KindSetPolicy }
func (*DrainNode) kind() Kind        { return KindDrainNode }
func (*KeepNodes) kind() Kind        { return KindKeepNodes }
func (*ExplainJobs) kind() Kind      { return KindExplainJobs }
func (*Init) kind() Kind             { return KindInit }
func (*SubmitJob) kind() Kind        { return KindSubmitJob }
func (*CancelJob) kind() Kind        { return KindCancelJob }
func (*StartJob) kind() Kind         { return KindStartJob }
func (*ExplainJob) kind() Kind       { return KindExplainJob }
func (*RegisterNode) kind() Kind     { return KindRegisterNode }
func (*LoseNode) kind() Kind         { return KindLoseNode }
func (*ReportWorkers) kind() Kind    { return KindReportWorkers }
func (*EvictJob) kind() Kind         { return KindEvictJob }
func (*RecordCheckpoint) kind() Kind { return KindRecordCheckpoint }
func (*ForgetJobs) kind() Kind       { return KindForgetJobs }
func (*ForgetNode) kind() Kind       { return KindForgetNode }

// Code says why a command was refused.
type Code uint8

// Codes of refusals. The API maps them to gRPC codes in one place.
const (
	OK              Code = 0
	Invalid         Code = 1 // the command can never succeed
	NotFound        Code = 2 // it names something that does not exist
	Conflict        Code = 3 // the state has moved on; look again
	NameTaken       Code = 4 // another live node has this name
	NeverFits       Code = 5 // the gang is larger than the cluster
	WrongCluster    Code = 6 // the node or log belongs to another cluster
	TooMany         Code = 7 // a bound of the cluster is reached
	UnknownVersion  Code = 8 // the command needs a newer release
	StaleCheckpoint Code = 9 // a newer epoch or step is already recorded
)

// Result is what Apply did. A refused command is a Result, not an error: the
// log went on, on every server alike.
type Result struct {
	Code      Code
	Message   string   // for people, if Code is not OK
	Job       JobID    // the job that the command made or changed, if one
	Duplicate bool     // SubmitJob: an earlier request made the job
	Changes   []Change // to be read before the next Apply, which may write over them
}

// Change names one object that a command replaced, made or dropped. Exactly
// one of its parts is set.
type Change struct {
	Job     JobID
	Node    NodeID
	Account *Account // as it is then
	Gone    bool     // with Account: it is forgotten
	Policy  bool
	// Minor says, in State.ChangesSince, that of a node only who holds its GPUs and
	// who has held them changed, or of a job only its reason and what is expected of it.
	Minor bool
}

// Bounds of the state. Each keeps memory and log entries finite.
const (
	MaxRequestID    = 128              // bytes
	RequestWindow   = 24 * time.Hour   // how long a request id is remembered
	MaxRequests     = 1 << 20          // how many are, at most
	MaxLiveJobs     = 1 << 20          // jobs that are not final
	MaxCommandBytes = 1<<20 - 128      // of one encoded command: what a log entry of 1 MiB holds
	MaxReason       = 1024             // bytes of a reason; longer ones are cut
	MaxHistory      = 8                // ended epochs that a job remembers
	MaxMetrics      = 32               // of one progress report
	MaxNodes        = 1 << 16          // nodes, lost ones too
	MaxNodeGPUs     = 1024             // GPUs of one node
	MaxAvoid        = 8                // nodes that a job remembers to keep away from
	MaxAccounts     = 1 << 16          // pairs of queue and user whose use is remembered
	maxExplained    = 4096             // jobs of one ExplainJobs
	maxStaleRefs    = 4096             // workers given up but still running, of one node
	maxRequeueGap   = 30 * time.Second // longest back-off after lost nodes
)
