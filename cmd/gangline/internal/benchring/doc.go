// Package benchring measures all-reduce on this machine, beside others' in the same run.
//
// Main function: [Run], which starts each contender as processes of its own, one for each rank, in turn, several times; [Rank] is what
// one of ours does. Times are the slowest rank's of each call, and medians of those; every result is checked. The contenders are
// Gloo (through PyTorch) and Open MPI, if they are installed: see peers/.
//
// It must not know how any of them works. Read next: run.go, then rank.go.
package benchring
