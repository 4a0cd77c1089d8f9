// Package calibrate holds the simulator against a real cluster: it runs one workload of short jobs on both, and says how
// far apart their completion times are.
//
// Its main functions are [Measure], which runs the workload on a cluster and takes the times, and [Compare], which runs
// it in the simulator with what starting and ending a job was measured to cost. The package starts no servers.
//
// Read next: measure.go, compare.go, and docs/simulator.md.
package calibrate
