// Package usage says what each user's checkpoints take of a shared storage, and removes a user's oldest ones when they take more than a limit.
//
// Its main type is Meter. Whose a job's directory is, is noted on the storage itself, so that any node can tell. It must not remove what a job
// would resume from, what is pinned, being read or referred to, nor trust that a newest checkpoint is good which it has not read.
//
// Read next: owner.go, room.go.
package usage
