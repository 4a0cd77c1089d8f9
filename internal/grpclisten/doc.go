// Package grpclisten lets gRPC servers stop while connections are half open.
//
// Main function: [Wrap]. A gRPC server waits, in Stop and in GracefulStop, for connections whose handshake is under way, and only its own
// time limit (2 minutes unless told otherwise) ends that wait: whoever connects and says nothing, or is stopped between two words, holds up
// the end of the server.
//
// It must not know what is served. Read next: listener.go.
package grpclisten
