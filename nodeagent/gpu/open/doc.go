// Package open turns a --gpus value into the gpu.Prober that it names.
//
// The main function is Prober. It lives apart from package gpu because it imports the implementations, which
// import gpu. It must hold no other logic, and must not keep state.
//
// Read next: nodeagent/gpu (spec.go has the forms), nodeagent/gpu/nvml, nodeagent/gpu/fake.
package open
