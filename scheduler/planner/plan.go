package planner

import (
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Config tunes the planner. What admins decide is in cluster.Policy.
type Config struct {
	// MaxStarts bounds the gangs of one plan, so that a plan's log entries stay
	// few; what is left starts with the next plan. Default 4096.
	MaxStarts int
	// MaxExplained bounds the jobs to which one plan says why they wait.
	// Default 4096.
	MaxExplained int
	// Length is the exact length of a job on its GPUs, for the orders sjf and
	// srtf. Only the simulator knows it; nil elsewhere.
	Length func(cluster.JobID) time.Duration
}

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config { return Config{MaxStarts: 4096, MaxExplained: 4096} }

// Start is one gang to start.
type Start struct {
	Job     cluster.JobID
	Epoch   cluster.Epoch
	Workers []cluster.Placement // by rank
}

// Evict is one running job to stop.
type Evict struct {
	Job    cluster.JobID
	Epoch  cluster.Epoch
	Cause  cluster.StopCause
	Reason string
	For    cluster.JobID // that gets its GPUs, or 0
	Cost   int64         // milli-GPU-milliseconds of work thrown away, as priced
}

// Keep is what is to be kept free for a pending job from now on; no nodes: nothing.
type Keep struct {
	Job   cluster.JobID
	Nodes []cluster.NodeID
	At    cluster.Time // when it is expected to start
}

// Reason says why jobs wait, as a sentence. It names only what changes
// seldom, so that a long queue does not write a reason for each job whenever
// a GPU is freed.
type Reason struct {
	Text string
	Jobs []cluster.JobID
}

// Plan is what the planner proposes against one state.
type Plan struct {
	Starts  []Start // in the order in which they were chosen; valid until the next Follow
	Evicts  []Evict
	Keeps   []Keep
	Reasons []Reason // for jobs whose reason has changed; likewise
}
