// Package async saves checkpoints while training goes on: a save costs the training one copy of its tensors in memory.
//
// Its main type is Saver, one for each rank. Save copies the tensors into an image that was allocated at the first save, and
// returns; a goroutine makes the shard durable, and that of rank 0 commits once all ranks' shards are there. If a save comes before
// the last one is durable, it waits: the storage is the limit then, and the wait is told.
//
// With Config.Dir (in an agent's job: GANGLINE_SNAPSHOT_DIR) images lie in shared memory, where the node's agent finds them when the
// worker has died, and finishes what was begun: see Finish.
//
// The package must not commit what is not durable, and knows no network: ranks learn of each other from what lies in the job's
// directory.
//
// Read next: saver.go, then ../image.go and ../DESIGN.md.
package async
