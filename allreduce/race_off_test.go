//go:build !race

package allreduce_test

const raceEnabled = false

// sparsely is how many points a test of losses at every point goes on by.
const sparsely = 1
