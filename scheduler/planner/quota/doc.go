// Package quota keeps what every queue and user holds against what the policy
// gives them: quotas, limits, what is borrowed from whom, and fair share.
//
// Its main type is [Tree], the tree of queues with counters on every level. A
// change costs the depth of the tree, never its size, and only whole numbers
// are used, so that servers and the simulator agree to the last bit. The tree
// is derived: one rebuilt from the state says the same as one that was fed
// with every change.
//
// It must not know nodes, jobs or an order of jobs, read a clock, or depend on
// the order of a map. Read next: tree.go (the queues), hold.go (what they
// hold, limits), reclaim.go (guaranteed and borrowed), share.go (fair share),
// warnings.go, then scheduler/planner.
package quota
