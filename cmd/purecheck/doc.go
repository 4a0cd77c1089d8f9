// Command purecheck reports what could make two replicas of Gangline's pure core disagree.
//
// Replicas stay equal because State.Apply and control.Step give the same result from the same input on every machine.
// One range over a map, one clock reading or one goroutine breaks that quietly, weeks before anybody notices. The Go
// linters have no rule for it, so this program has. Run it on the packages that the policy table names:
//
//	go run ./cmd/purecheck                       # all of them
//	go run ./cmd/purecheck ./scheduler/cluster   # one
//
// It reports, in the non-test files of a pure package:
//
//   - a range over a map, or maps.Keys, Values or All that is not sorted at once
//     (waiver, on the line or the one above: "// any order: <why the order cannot matter>");
//   - go statements, select, channels, and imports such as sync, os, net, context;
//   - the wall clock, the local time zone, and the global random generator;
//   - package variables, unless they are error sentinels or carry "// table: <what it holds>" or the linter's
//     gochecknoglobals waiver with a reason; assignments to package variables, always; and init functions;
//   - imports from outside the standard library, direct or through another package, that the table does not allow.
//
// A package of the level "deterministic" (the simulator) may write files and keep state, so it is checked for map
// order, concurrency, clock and random generator only.
//
// Exit status: 0 nothing found, 1 findings (one per line, file:line:column: message), 2 the check could not run.
//
// Reading order: policy.go (what is checked where), load.go (go list and types), check.go (the rules).
package main
