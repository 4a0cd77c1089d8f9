// Package nodeagent is the agent of one node: it makes what runs on the node be what the scheduler wants there, and
// tells the scheduler what runs.
//
// The main type is [Agent]; [Run] builds one from a [Config] and runs it. The agent owns no worker process: each has a
// supervisor of its own (package worker), so the agent may end, crash or be upgraded without a training process
// noticing. What to do is decided by the pure package reconcile.
//
// The package must never stop a worker because of silence: without an order from a leader, or without a leader at
// all, what runs goes on. It must not import the scheduler; the two meet in proto.
//
// Read DESIGN.md in this folder next, then agent.go (the parts), loop.go (the one goroutine that decides), connect.go
// and session.go (the stream to the leader), env.go (what a worker sees).
package nodeagent
