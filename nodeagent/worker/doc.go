// Package worker starts, supervises, adopts, signals and journals the worker processes of one node.
//
// The main type is [Manager]: the agent asks it to launch and stop workers and reads their [Status]; it holds no
// worker itself. Each worker is the child of its own supervisor process ([Supervise]), which lives in its own session,
// outlives the agent, and keeps the worker's logs and exit status in one directory on disk. A restarted agent opens
// the same directory and finds everything again.
//
// The package must not know the scheduler, gRPC or GPUs: a GPU is an opaque UUID that it carries for the agent. It
// must never start the same (job, epoch, rank) twice, never free a worker whose processes still live, and never kill
// a worker because the agent ended.
//
// Read DESIGN.md in this folder next (disk layout, states, rules), then supervise.go and manager.go.
package worker
