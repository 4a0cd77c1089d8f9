// Package faults breaks every rule of purecheck once. A comment "want" names the finding that its line must give.
package faults

import (
	"context" // want "import of context"
	"errors"
	"maps"
	"math/rand/v2"
	"os"   // want "import of os"
	"sync" // want "import of sync"
	clock "time"
)

// ErrFine is an error sentinel, which is allowed.
var ErrFine = errors.New("fine")

type codeError int

func (codeError) Error() string { return "code" }

var errTyped codeError = 3 // a sentinel of a named error type is allowed too

var counter int // want "package variable counter"

// table:
var bareWaiver = []int{1} // want "package variable bareWaiver"

var (
	// table: one variable of the group is waived, the next is not
	waivedInGroup = []int{1}
	notWaived     = []int{2} // want "package variable notWaived"
)

var lock sync.Mutex // want "package variable lock"

func init() { // want "init function"
	counter = 1 // want "assignment to package variable counter"
}

// Orders loops over maps.
func Orders(m map[string]int, named namedMap) []string {
	var out []string
	for k := range m { // want "range over a map"
		out = append(out, k)
	}
	// any order:
	for k := range named { // want "range over a map"
		out = append(out, k)
	}
	for k := range maps.Keys(m) { // want "maps.Keys has no fixed order"
		out = append(out, k)
	}
	keys := maps.Values(m) // want "maps.Values has no fixed order"
	_ = keys
	return out
}

type namedMap map[string]bool

// Generic loops over a map whose type is a parameter.
func Generic[M ~map[string]int](m M) (sum int) {
	for _, v := range m { // want "range over a map"
		sum += v
	}
	return sum
}

// Threads uses more than one thread.
func Threads(ctx context.Context, c chan int) int { // want "channel type"
	go lock.Lock() // want "go statement"
	c <- 1         // want "channel send"
	select {       // want "select chooses at random"
	case v := <-c: // want "channel receive"
		return v
	case <-ctx.Done(): // want "channel receive"
	}
	for range c { // want "range over a channel"
		break
	}
	close(c) // want "close of a channel"
	return 0
}

// Clocks reads the time, the machine's time zone and the global random generator.
func Clocks(t clock.Time) (clock.Duration, int) {
	now := clock.Now // want "time.Now reads the wall clock"
	_ = now
	_ = clock.Unix(1, 0)                               // want "time.Unix gives the machine's time zone"
	_ = t.In(clock.Local)                              // want "time.Local depends on the machine"
	return clock.Since(t), rand.IntN(waivedInGroup[0]) // want "time.Since reads the wall clock" "rand.IntN uses the global generator"
}

// Writes changes package variables in every way that syntax shows.
func Writes() {
	counter++               // want "assignment to package variable counter"
	waivedInGroup[0]++      // want "assignment to package variable waivedInGroup"
	os.Args[0] = "x"        // want "assignment to package variable Args"
	for counter = range 3 { // want "assignment to package variable counter"
	}
	bareWaiver, notWaived = nil, nil // want "package variable bareWaiver" "package variable notWaived"
}
