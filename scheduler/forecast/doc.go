// Package forecast answers why a job waits, when it is expected to start, and
// what would start it sooner; and the same for a job that is not submitted yet.
//
// Its main type is [Forecaster]. What stands against a job now comes from the
// planner's index (planner.Index.Explain). When it starts is found by letting
// the real control.Stepper run forward on forks of the state, under a virtual
// clock, several times with lengths of jobs drawn from what jobs like them have
// needed. What would start it sooner is tried in the same two ways.
//
// It is pure: equal states, times and questions give equal answers, its work is
// bounded by counts and not by a clock, and its draws are no draws but functions
// of the run and the job. It proposes nothing. Jobs that are not submitted yet
// and nodes that fail are not foreseen.
//
// [Courses] runs all of a cluster forward for who looks on, such as package
// sim/whatif, which compares it with a changed one; there jobs may come, too.
//
// Read next: forecast.go (questions and answers), world.go (running forward),
// lengths.go (how long jobs take), changes.go (what would help), then
// scheduler/planner and scheduler/control.
package forecast
