// Package other is reached by package reach.
package other

import "github.com/gangline/gangline/cmd/purecheck/testdata/clean"

// Err passes a sentinel on.
func Err() error { return clean.ErrNone }
