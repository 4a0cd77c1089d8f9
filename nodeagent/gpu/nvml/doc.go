// Package nvml shows the NVIDIA GPUs of this node. NVML calls can hang when a GPU falls off the bus, and a call
// that the driver lacks ends the whole process with status 127; so NVML runs in a child process, and the agent
// talks to it by lines of JSON over a pipe with a deadline for each call.
//
// The main type is Client, the agent's side and a gpu.Prober; it has no cgo. ProbeMain is the child's whole
// program, behind the hidden verb "gangline gpu-probe". This is the only package that imports go-nvml.
//
// The Client must never wait for the child without a deadline, and the child must never keep state that the
// Client needs after the child's death.
//
// Read next: client.go (what the agent sees), child.go (one life of the child process), protocol.go (the lines),
// probe.go (the child's loop), driver_cgo.go and mig.go (the NVML calls), island.go (which GPUs lie together), testdata/fakenvml (an NVML for tests).
package nvml
