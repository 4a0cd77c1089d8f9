// Package api serves the scheduler's two gRPC services, and nothing else:
// it authenticates, checks, converts, then proposes a command or reads a state.
//
// Its main types are [Service], the public API of researchers and admins, and
// [Hub], the leader's end of the agents' streams. Both stand on the small
// interface [Replica].
//
// The package decides nothing about scheduling and changes no state but by
// proposing commands: rules belong to scheduler/cluster and scheduler/control.
// What it keeps in memory (leases, heartbeats, progress, rendezvous) is
// telemetry of the present leader; losing it costs a few seconds, never a job.
//
// Read next: replica.go (what is needed below), forward.go (how a call finds
// the leader), hub.go, agent.go (one agent's stream), desired.go and news.go
// (what control decides, to and from protobuf), then scheduler/replica.
package api
