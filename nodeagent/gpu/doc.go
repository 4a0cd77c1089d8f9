// Package gpu says what a GPU is to the node agent and how the agent asks for the GPUs of its node.
//
// The main type is Prober: an inventory (GPUs), readings (Samples) and an end (Close). Monitor polls a Prober
// and keeps the latest answer for readers that must not wait, such as a metrics scrape or a heartbeat.
// A GPU's identity is its UUID everywhere; the index and the minor number are facts about one boot.
//
// This package must not talk to a driver, import an implementation, or invent a reading: a GPU that reports
// nothing has no Sample, and a value that a GPU does not report is nil, never zero.
//
// Read next: nodeagent/gpu/open (a spec such as "auto" or "fake:8xH100" to a Prober), nodeagent/gpu/nvml
// (real GPUs, through a child process), nodeagent/gpu/fake (emulated GPUs).
package gpu
