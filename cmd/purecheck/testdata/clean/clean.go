// Package clean comes close to every rule of purecheck and breaks none.
package clean

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// ErrNone is an error sentinel.
var ErrNone = errors.New("none")

var _ error = ErrNone

// table: names of the days, never written
var days = []string{"mon", "tue"}

var months = []string{"jan"} //nolint:gochecknoglobals // table, never written

// Orders loops over maps where the order cannot show.
func Orders(m map[string]int) (sum, n int, keys []string) {
	for _, v := range m { // any order: addition of integers commutes
		sum += v
	}
	// any order: addition of integers commutes
	for _, v := range m {
		sum += v
	}
	for range m {
		n++
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		keys = append(keys, k)
	}
	for _, k := range slices.SortedFunc(maps.Keys(m), func(a, b string) int { return len(a) - len(b) }) {
		keys = append(keys, k)
	}
	_ = maps.Collect(maps.All(m))
	for i := range 3 {
		n += i
	}
	return sum, n, append(keys, days[0], months[0])
}

// Times takes the time and the random generator as arguments; local variables may have the names of package ones.
func Times(now time.Time, rng *rand.Rand) (time.Time, int) {
	days := []string{"local"}
	days[0] = "changed"
	own := rand.New(rand.NewPCG(1, 2))
	return time.Unix(0, now.UnixNano()).UTC().Add(time.Second), rng.IntN(6) + own.IntN(6)
}
