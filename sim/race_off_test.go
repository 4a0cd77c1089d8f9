//go:build !race

package sim

// raceEnabled: the race detector makes a run some ten times slower.
const raceEnabled = false
