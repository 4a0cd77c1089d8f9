// Package kernel combines two vectors element by element: the arithmetic of every collective, for all element types.
//
// Main functions: [Combine] and, in place, [Reduce]; [All] combines many vectors in one pass. [Type] says what an element is, [Op] what is done. [Narrow] is a form of fewer bytes, with
// kernels of its own (code.go).
//
// Sums of 16-bit floats are made in float32 and rounded once, to the nearest, to even between two. Integers wrap as in C. Min and
// max of floats give a NaN if either side is one. With AVX2 (on amd64, found out when the program starts) and without, results
// have the same bits, NaNs excepted: which NaN comes out is not promised. Build with the tag purego to leave the assembly out.
//
// What it must not do: know of ranks, frames or memory that is not given to it. It is pure: no clock, goroutine or lock.
//
// kernel_amd64.s and stubs_amd64.go are written by asm/main.go: "make generate".
//
// Read next: ring.go of package allreduce, which says in which order vectors are combined.
package kernel
