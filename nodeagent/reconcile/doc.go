// Package reconcile decides what a node agent does next: it compares what should run on the node with what does.
//
// The main function is [Diff]; it takes values and returns values, so that the agent, the simulator and the tests
// follow the same rules. It must not know processes, clocks, networks or protobuf: the agent translates.
//
// Read nodeagent/DESIGN.md for the rules in words, then diff.go.
package reconcile
