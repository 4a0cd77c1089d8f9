// Package census counts who holds, who waits and why, queue by queue, for
// people: the API, the status page and reports show what it returns.
//
// Its one function is [Take]. It is pure: a state and a time go in, numbers
// come out, and it decides nothing. Its cost is in proportion to the jobs that
// wait or hold. What a queue has borrowed is counted by the planner's own tree,
// package quota. Read next: census.go, reasons.go.
package census
