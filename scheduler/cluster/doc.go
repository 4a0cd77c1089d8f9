// Package cluster holds the facts of a cluster and the one way they change.
//
// Its main type is [State]; [State.Apply] is the only place in Gangline where
// cluster state changes. The Raft state machine, the simulator and the tests
// all drive this same function.
//
// The package is pure: values in, values out. It has no clock, I/O, goroutine,
// lock, global or map-order dependence; time, ids and randomness are stamped
// by the proposer before the log. Objects in a State are replaced, never
// edited, so that [State.Snapshot] is a copy of a few pointers.
//
// Read next: command.go (what can happen), apply.go (what it does),
// check.go (what must always hold), codec.go (bytes), then scheduler/planner.
package cluster
