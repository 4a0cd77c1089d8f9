// Package telemetry shows a node agent to Prometheus: its GPUs, its workers, its connection.
//
// The main type is Metrics. At a scrape it asks the agent for a Snapshot that is in memory already; the counters
// are told of each worker's launch and exit as it happens.
//
// It must not import the agent, wait for a driver, or send anything through Raft. A GPU that reports nothing has
// no series: never a zero or a sentinel. Labels come from closed sets (node, GPU, state, outcome), never jobs.
//
// Read next: metrics.go (the names), nodeagent/gpu (where readings come from).
package telemetry
