// Package scheduler is one scheduler server: it wires the Raft replica, the
// gRPC API, the agents' hub and the leader's loop, and serves metrics.
//
// Its main function is [Run]. It decides nothing: decisions are in
// scheduler/control and scheduler/planner, changes in scheduler/cluster. Read
// next: server.go (what runs), loop.go (the leader), then scheduler/DESIGN.md.
package scheduler
