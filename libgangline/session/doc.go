// Package session is what libgangline does, in Go: groups, their calls and the handles by which C knows them.
//
// Main type: [Session], all that a process has open. The package libgangline beside it turns pointers and numbers of C into
// the values here, and errors into the codes of gangline.h, by [CodeOf].
//
// The package must not end the process, install a signal handler or write to its output: it is a guest in a program of another
// language. It knows no pointers of C: memory comes as byte slices, and stays the caller's.
//
// Read next: group.go for a group, lane.go for calls that follow each other, code.go for errors; then ../gangline.h.
package session
