// Package demo shows what Gangline promises on one machine: it starts a real
// cluster of processes, trains on real data, kills the leader and a node on
// the way, and checks that what it shows really held.
//
// Its main function is [Run]. It uses the product from outside only: the
// gangline binary and its gRPC API. It must not reach into the scheduler or
// the agent. Read next: story.go (what happens), cluster.go (the processes),
// report.go (what is checked).
package demo
