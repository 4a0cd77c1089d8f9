// Package shm is memory that the ranks of one machine share, and how they wait for each other in it.
//
// Main type: [Team]. One rank makes it with [Create] and tells the others its name, which [Join] it. Each has a place in it: a card
// that says what it is about to do, a small and two large stages for its elements, and a count of the phases that it has reached,
// which [Team.Reach] raises and [Team.Await] waits for.
//
// What it must not do: know what the stages hold, or judge a rank that does not come. Whoever waits gives a function that says when to
// stop waiting. Linux only; elsewhere [Create] says so.
//
// Read next: local.go of package allreduce, which uses it.
package shm
