// Package trace reads recorded workloads, and the clusters that they ran on, for the simulator.
//
// The main type is [Source], which gives the jobs of a workload one by one, by submission, so that a file larger than
// memory can be replayed; [OpenJobs] makes one of a file. Nodes are few and read whole ([ReadNodes]).
//
// The package must not read a clock, start a goroutine or open a connection: equal files give equal jobs. It knows
// nothing of the scheduler but the bounds of what a job may ask for.
//
// Read next: job.go (what a reader makes of a row), table.go and csv.go (files of columns), format.go (files as others
// write them), order.go (the order of submission).
package trace
