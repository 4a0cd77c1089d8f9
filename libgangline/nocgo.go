//go:build !cgo

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "libgangline needs cgo: install a C compiler and build it with `make lib`")
	os.Exit(1)
}
