// Package reach imports a package, which imports another.
package reach

import "github.com/gangline/gangline/cmd/purecheck/testdata/other"

// Err passes a sentinel on.
func Err() error { return other.Err() }
