// Package control is the leader's judgement: one pure function, [Step], looks
// at a state, the nodes' leases and the time, and says which commands to
// propose. The servers and the simulator drive this same function.
//
// It must not read a clock, keep anything between calls, or change the state:
// only committed commands do, through cluster.State.Apply, which checks each
// of them again. Read next: scheduler/planner, and scheduler (the loop that
// calls Step on the leader).
package control
