// Package replay plays a recorded workload through the scheduler's own core under a virtual clock, as fast as the core
// decides, and says what would have happened.
//
// The main function is [Run]: it submits the jobs of a [Trace], lets the leader's judgement (scheduler/control) start
// and stop them, answers for the agents at once, and makes a [Report]. [Place] does the same for placement alone. Unlike
// in the world of package sim nothing fails and no message takes time, so that a trace of years takes seconds; with
// [Conditions] jobs take time to start, save and stop, and machines, GPUs, agents and leaders fail.
//
// The package must not read a clock, start a goroutine or open a connection; equal inputs give equal reports, byte for
// byte. It decides nothing of its own: a rule that only a replay has would make its figures worthless.
//
// Read next: feed.go (how jobs come; sim/trace reads them), run.go (the loop), world.go (what agents and workers would do), partition.go,
// tally.go, report.go, watch.go (what others may see of it); with conditions: conditions.go, reality.go, gang.go, machine.go, strike.go;
// then scheduler/control.
package replay
