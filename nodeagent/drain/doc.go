// Package drain is the agent's side of checkpoints in two tiers: ranks write their shards on the node's own disk, and the agent copies them
// into the job's directory on the shared storage, where the checkpoint is committed once those of all nodes have come. It also keeps
// copies of another node's shards until then, and completes what can be had before a start.
//
// Its main type is Drainer; Settle is for launches. A save never waits for it. It must not know workers beyond their jobs, nor the
// scheduler; it removes nothing that is not on the shared storage, unless a newer epoch has made it worthless.
//
// Read next: look.go for one look at the disk, settle.go for the launch, ../../checkpoint/local.go and drain.go for what the tiers promise.
package drain
