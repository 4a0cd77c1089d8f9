// Package determ keeps state and writes files, which a deterministic package may, and has a random order, which it
// may not.
package determ

import (
	"os"
	"time"
)

var runs int

// Report counts its calls and writes a file.
func Report(m map[string]int) error {
	runs++
	for k := range m { // want "range over a map"
		if err := os.WriteFile(k, nil, 0o600); err != nil {
			return err
		}
	}
	_ = time.Now() // want "time.Now reads the wall clock"
	return nil
}
