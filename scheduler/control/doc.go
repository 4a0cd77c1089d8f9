// Package control is the leader's judgement, in pure functions. [Step] looks at
// a state, the nodes' leases and the time, and says which commands to propose.
// [OrderFor] says what should run on a node, [News] which commands an agent's
// report calls for, [NeedsRegistration] whether its introduction does, and
// [Clock] how time goes on. The servers and the simulator drive these same
// functions; a rule that only one of them has is a bug.
//
// It must not read a clock, keep anything between calls, or change the state:
// only committed commands do, through cluster.State.Apply, which checks each
// of them again. Read next: scheduler/planner, scheduler (the loop that calls
// Step on the leader), and scheduler/api (which talks with the agents).
package control
