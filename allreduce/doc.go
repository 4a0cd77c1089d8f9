// Package allreduce combines vectors over the ranks of one (job, epoch), which
// stand in a ring, and tells every rank which one was lost when one is.
//
// Main type: [Group]. Get one from grpclink.Join in the product, or from [New]
// with links of memlink in a test. Then call [Group.AllReduce],
// [Group.ReduceScatter], [Group.AllGather], [Group.Broadcast] and [Group.Barrier],
// each on every rank and in the same order; [Group.StartAllReduce] begins many at once and gives
// a [Handle] for each, a [Fuser] packs small vectors into few calls, and [Group.Send] and [Group.Recv] pass
// vectors between two ranks. A [Vector] is the caller's memory,
// made by [Of] or [Bits].
//
// # Order of sums
//
// A vector is cut evenly into WorldSize segments. Segment i starts its way at
// rank i+1 and each rank on the way adds its own elements:
// x[i+1] + x[i+2] + ... + x[i], from left to right, ranks modulo
// WorldSize. Rank i then holds the final sum and its bits are copied to all.
// So all ranks end with equal bits, and equal inputs, lengths and WorldSize
// give equal bits in every run. Another WorldSize may round differently. 16-bit
// floats are added in float32 and rounded at each rank; a mean is divided once,
// by rank i.
//
// A short vector between ranks that share no memory (Config.SmallBytes) is added by recursive doubling: with p the largest power of two up to
// WorldSize, x[r] + x[r+p] first, then pairs of ranks that differ in bit 0, in bit 1 and so on, the lower one's first.
//
// Where all ranks share memory ([Group.Share]) an all-reduce adds x[0] + x[1] + ...
// instead, for every element: other bits than the ring's, and again equal on all
// ranks and in every run.
//
// Sums and means of float32 can travel in fewer bytes, and lose something within a bound: [Wire].
//
// # What it must not do
//
// It must not know how a link carries a frame, who decides on ranks and epochs,
// or what to do after a loss: a broken group stays broken, and the worker joins
// again at the next epoch. ring.go, course.go and package kernel are pure: no
// clock, no goroutine, no lock.
//
// Read next: DESIGN.md here; ring.go for the arithmetic, transfer.go for a call,
// local.go for shared memory, edge.go for how a lost rank is found; then package
// grpclink.
package allreduce
