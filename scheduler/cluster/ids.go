package cluster

import "time"

// JobID is a job's number: 1, 2, 3... in order of submission, never used twice.
type JobID uint64

// NodeID is the identity that an agent made at its first start and keeps on
// its node's disk. Not the node's name: names can be taken over, ids cannot.
type NodeID string

// Epoch is a job's launch count. The first start is epoch 1. It fences late
// workers, rings and checkpoint writers.
type Epoch uint64

// Rank is a worker's number in its gang, 0..world size - 1.
type Rank int32

// Time is Unix nanoseconds, stamped by the proposer. The zero Time means
// "never" in every field of the state.
type Time int64

// Add returns t shifted by d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Sub returns the duration from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }
