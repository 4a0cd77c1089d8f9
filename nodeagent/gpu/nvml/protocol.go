package nvml

import "github.com/gangline/gangline/nodeagent/gpu"

// protocolVersion changes with the meaning of a line. Both ends are one binary, so a difference means a wrong
// Config.Command.
const protocolVersion = 1

// maxLine bounds one line of the protocol: gpu.MaxFakeGPUs inventories of about 400 bytes are far below it.
const maxLine = 1 << 20

// op is what the agent asks of the child.
type op string

const (
	opInit    op = "init"    // load the library and attach to the driver; first, and once
	opGPUs    op = "gpus"    // inventory and health
	opSamples op = "samples" // readings
)

// code classifies a failure of the child for the agent.
type code string

const (
	codeNoLibrary code = "no-library" // libnvidia-ml.so.1 cannot be loaded
	codeNoDriver  code = "no-driver"  // the library is there, the kernel driver is not
	codeNoCgo     code = "no-cgo"     // this build cannot call NVML
	codeFailed    code = "failed"     // anything else, said in the text
)

// absent tells whether the failure means that the node has no usable driver.
func (c code) absent() bool { return c == codeNoLibrary || c == codeNoDriver || c == codeNoCgo }

// request is one line from the agent to the child.
type request struct {
	Version int    `json:"v"`
	ID      uint64 `json:"id"`
	Op      op     `json:"op"`
	// Library is the path or soname to load, for opInit; empty means libnvidia-ml.so.1.
	Library string `json:"library,omitempty"`
}

// response is one line from the child to the agent: progress (At set) or the answer.
type response struct {
	ID uint64 `json:"id"`
	// At names the device that the child is about to ask; if no more lines come, that device hung.
	At string `json:"at,omitempty"`
	// Code and Error say why the request failed; empty on success.
	Code  code   `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
	// GPUs and Missing answer opGPUs; Missing describes devices that could not be identified.
	GPUs    []gpu.GPU `json:"gpus,omitempty"`
	Missing []string  `json:"missing,omitempty"`
	// Samples answers opSamples.
	Samples []gpu.Sample `json:"samples,omitempty"`
}
