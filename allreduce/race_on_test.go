//go:build race

package allreduce_test

// raceEnabled: under the race detector pools forget at random what they are given.
const raceEnabled = true
