// Package grpclink connects the ranks of a ring over gRPC.
//
// Main function: [Join], which gives an [allreduce.Group] whose two links are
// bidirectional streams of the service in proto/gangline/ring/v1/ring.proto:
// each rank dials its next one and serves its previous one. They are our own ends of
// gRPC's protocol (package h2stream), from and to the caller's vector without a copy; who asks for
// anything else on a rank's port is served by grpc-go. Where the site
// lets them, neighbours agree over that session on a faster connection for their
// frames ([Path]): a Unix socket, or TCP to the same port.
//
// It must not know what frames mean beyond the greeting that opens a link, find
// peers, or try again after a ring broke. Read next: link.go, then dial.go, server.go, codec.go, rpc.go,
// data.go, and DESIGN.md in package allreduce.
package grpclink
