// Package h2stream is one end of an HTTP/2 connection that carries one gRPC stream, for messages of megabytes.
//
// Main type: [Stream], opened by [Dial] or [Serve]. It speaks gRPC's protocol as any peer and any proxy does, but sends
// a message in as few DATA frames as the other side takes, from the caller's memory by one vectored write, and reads one straight to where it
// shall lie. [Sort] tells on a server's port who comes for that stream from who must be served by grpc-go.
//
// It must not know what messages mean, serve a second stream on a connection, start over when one ends, or judge silence: its user sends
// signs of life in messages. Frames and header lists are those of golang.org/x/net/http2. Read next: stream.go, then send.go and receive.go.
//
// Source: RFC 9113 (HTTP/2), and grpc/doc/PROTOCOL-HTTP2.md in github.com/grpc/grpc.
package h2stream
