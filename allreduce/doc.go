// Package allreduce sums float32 vectors over the ranks of one (job, epoch),
// which stand in a ring, and tells every rank which one was lost when one is.
//
// Main type: [Group]. Get one from grpclink.Join in the product, or from [New]
// with links of memlink in a test. Then call [Group.AllReduce] once per Step on
// every rank.
//
// # Order of sums
//
// A vector is cut evenly into groups, a group evenly into WorldSize segments.
// Segment i starts its way at rank i and each rank on the way adds its own
// elements: x[i] + x[i+1] + ... + x[i-1], from left to right, ranks modulo
// WorldSize. One rank then holds the final sum and its bits are copied to all.
// So all ranks end with equal bits, and equal inputs, lengths, WorldSize,
// ChunkBytes and Window give equal bits in every run. Another WorldSize, or
// another ChunkBytes or Window, may round differently.
//
// # What it must not do
//
// It must not know how a link carries a frame, who decides on ranks and epochs,
// or what to do after a loss: a broken group stays broken, and the worker joins
// again at the next epoch. ring.go and kernel.go are pure: no clock, no
// goroutine, no lock.
//
// Read next: DESIGN.md here; ring.go for the arithmetic, transfer.go for a call,
// edge.go for how a lost rank is found; then package grpclink.
package allreduce
