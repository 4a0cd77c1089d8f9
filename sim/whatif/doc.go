// Package whatif lets a cluster go on from a snapshot as it is, and beside it with something changed: other nodes, another
// policy, another quota, a job less. It says who would wait for how long, what would be used, and who gains and who loses.
//
// The main function is [Ask]. The scheduler decides, by forecast.Courses; lengths of jobs are drawn from what jobs like them
// have needed, several times, and are the same on both sides.
//
// The package reads no clock and opens no file; equal questions give equal answers.
//
// Read next: change.go, ask.go, answer.go, text.go, then scheduler/forecast/course.go.
package whatif
