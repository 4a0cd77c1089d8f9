// Package workerclient is what a training program written in Go uses to talk to the agent of its node: rendezvous,
// progress, committed checkpoints, and the notice that it is to stop soon.
//
// The main type is [Client], made by [Dial] from the environment that the agent gave the program. Outside Gangline,
// where there is no agent socket, everything works as a world of one: rendezvous returns at once, reports go nowhere.
//
// The package must never make a program fail or wait because the agent is restarted or upgraded: reports are kept and
// retried, streams are opened again. It knows nothing of rings, checkpoint files or schedulers.
//
// Read client.go next; the other end is nodeagent/socket.
package workerclient
