package telemetry

import (
	"time"

	"github.com/gangline/gangline/nodeagent/gpu"
	"github.com/gangline/gangline/nodeagent/storage"
)

// WorkerState is a state of a worker on this node, as gangline_agent_workers counts it.
type WorkerState string

// The worker states.
const (
	// WorkerRunning means that the worker's process runs.
	WorkerRunning WorkerState = "running"
	// WorkerStopping means that the worker was told to stop and still runs.
	WorkerStopping WorkerState = "stopping"
	// WorkerExited means that the process ended and the scheduler has not acknowledged it yet.
	WorkerExited WorkerState = "exited"
	// WorkerLost means that the supervisor vanished and nobody knows how the worker ended.
	WorkerLost WorkerState = "lost"
)

// Launch is the outcome of one attempt to start a worker.
type Launch string

// The launch outcomes.
const (
	// LaunchStarted means that the process runs.
	LaunchStarted Launch = "started"
	// LaunchFailed means that no process came to be.
	LaunchFailed Launch = "failed"
	// LaunchAdopted means that a restarted agent found the worker running.
	LaunchAdopted Launch = "adopted"
)

// Exit is how a worker ended.
type Exit string

// The exit outcomes.
const (
	// ExitSucceeded means exit status 0.
	ExitSucceeded Exit = "succeeded"
	// ExitFailed means another exit status.
	ExitFailed Exit = "failed"
	// ExitKilled means a signal that the agent did not send.
	ExitKilled Exit = "killed"
	// ExitStopped means that the agent stopped the worker, whatever its status.
	ExitStopped Exit = "stopped"
	// ExitLost means that the supervisor vanished.
	ExitLost Exit = "lost"
)

// The closed sets, so that each series exists from the start with 0 and rate() sees the first event.
var (
	workerStates = []WorkerState{WorkerRunning, WorkerStopping, WorkerExited, WorkerLost} //nolint:gochecknoglobals // table
	launches     = []Launch{LaunchStarted, LaunchFailed, LaunchAdopted}                   //nolint:gochecknoglobals // table
	exits        = []Exit{ExitSucceeded, ExitFailed, ExitKilled, ExitStopped, ExitLost}   //nolint:gochecknoglobals // table
	gpuStates    = []string{gpuFree, gpuHeld, gpuUnhealthy}                               //nolint:gochecknoglobals // table
)

// The states of gangline_node_gpus. Each GPU is in one of them: a held GPU that is sick counts as held, since
// its worker still has it; gangline_gpu_healthy tells of its health.
const (
	gpuFree      = "free"
	gpuHeld      = "held"
	gpuUnhealthy = "unhealthy"
)

// Ring is what a worker's collective calls have come to in its epoch.
type Ring struct {
	Job          uint64
	Rank         int
	Calls, Bytes int64
	Busy         time.Duration // within calls: waiting for other ranks, and moving and adding data
}

// Snapshot is the agent at one moment. Metrics reads it and keeps nothing.
type Snapshot struct {
	// GPUs is the inventory.
	GPUs []gpu.GPU
	// Samples are the latest readings; a GPU without one has no load series.
	Samples []gpu.Sample
	// Held has the thousandths that workers hold of each GPU, by UUID; 1000 is all of it.
	Held map[string]int
	// Workers counts the workers by state; an absent state counts 0, a state outside the closed set is ignored.
	Workers map[WorkerState]int
	// Rings are what the workers' collective calls have come to, of those that tell.
	Rings []Ring
	// Connected tells whether the stream to the scheduler is up.
	Connected bool
	// Storage is how the checkpoints' storage does.
	Storage storage.Status
}
