// Package socket serves the agent socket: one small gRPC service for each worker on this node, on a Unix socket of
// its own, so that who asks is known by where the question comes from.
//
// The main type is [Server]: the agent opens and closes sockets with it, tells it peers and stops, and reads what the
// workers said ([Server.Notes]). What a worker said is kept in a file too, so that a restarted agent still knows it.
//
// The package must not start or signal processes, and knows nothing of the scheduler: it is a memory with a door.
// A worker must never suffer from the agent's absence; the other half of that promise is package workerclient.
//
// Read server.go next, then service.go (the five calls) and path.go (where sockets lie).
package socket
