// Package interval says when a worker is to save, by its job's checkpoint policy: each so much time, each so many steps, or as often as loses the
// least to saves and failures together, from what the job's own saves cost.
//
// Its main type is Pace. It is pure: time is a parameter, and nobody but the caller guards it. It must not know workers, files or the network.
//
// Read next: pace.go, then ../../checkpoint/interval.go for the formula.
package interval
