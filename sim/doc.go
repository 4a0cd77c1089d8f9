// Package sim plays a whole cluster under a virtual clock: servers with a replicated log, agents, workers, clients and
// everything that goes wrong between them, all from one seed.
//
// The main function is [Run]. It drives the very functions that the servers and agents run: cluster.State.Apply,
// control.Step and reconcile.Diff. After each command it checks what must always hold, and at the end, with the faults
// over, that every job that can run did run. A [Report] is the same bytes for the same [Config] on every machine.
//
// The package must not read a clock, start a goroutine, open a connection, or walk a map; randomness comes from
// generators made from Config.Seed.
//
// Read sim/DESIGN.md for the rules, then world.go (the loop), leader.go and agent.go (the two sides of the
// cluster), machine.go (what physically runs), faults.go, checks.go and report.go.
package sim
