// Package pusher copies checkpoints to the object store in the background, when a job's policy asks for it, and brings one back for a start
// whose shared storage has none.
//
// Its main type is Pusher. A save never waits for it: a store that is slow, full or away costs copies, not training. It must not know workers beyond their
// keys, nor the scheduler; it tells what it has copied, and what it could not.
//
// Read next: push.go for the order of things, fetch.go for the way back, ../../checkpoint/remote for what a copy is.
package pusher
