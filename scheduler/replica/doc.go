// Package replica keeps one cluster.State equal on several servers: it wraps
// hashicorp/raft, its log, its snapshots and its connections.
//
// Its main type is [Replica], made by [Open]: [Replica.Propose] changes the
// state, [Replica.State] and [Replica.Read] show it, [Replica.Lead] runs a
// function while this server leads.
//
// The package decides nothing about jobs or nodes: all rules are in
// cluster.State.Apply, which every server runs on the same log. It never skips
// an entry that it cannot read: it stops and says so.
//
// Read next: replica.go (life of a Replica), fsm.go (log to state), propose.go
// (commands to log), lead.go and read.go (leadership), handshake.go and mux.go
// (connections), DESIGN.md (why it is so), then scheduler/cluster.
package replica
