// Command libgangline is a shared library for training programs that are not written in Go: build it with `make lib`, which makes
// bin/libgangline.so, and call what gangline.h declares.
//
// There is no main type: gangline.h is the interface, gangline.c has its functions, which refuse forked processes and call the
// exported functions here; these turn what C gives into Go's values for package session, where all that happens is.
//
// The package must not hold anything itself but the one session of the process, and must not let a panic out.
//
// Read gangline.h next, then enter.go for what every call goes through, then package session.
package main
