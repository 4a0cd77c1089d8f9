//go:build race

package allreduce_test

// raceEnabled: under the race detector pools forget at random what they are given.
const raceEnabled = true

// sparsely is how many points a test of losses at every point goes on by: all take too long under the race detector.
const sparsely = 29
