// Package memlink connects ranks of one process by channels, for tests.
//
// Main types: [Link], one end of a connection, and [Ring], which connects as
// many ranks as asked. It copies nothing: a frame sent is the frame received.
// It must not be used between goroutines that do not trust each other with
// frames, and not in the product. Read next: package grpclink, the real thing.
package memlink
