// Command digits trains a small neural network on handwritten digits, data-parallel over the ranks of a Gangline job,
// and resumes from its checkpoints: the example of how a training program in Go uses Gangline's libraries.
//
// Its main type is trainer. The trained model is the same bit for bit with any number of workers, and with any number
// of interruptions; README.md says how. Exit status: 0 trained, or stopped on request with a checkpoint; 1 failed; 2 wrong
// usage; 75 another rank was lost, so start the job again.
//
// It must not know nodes, GPUs or schedulers: its place in the gang comes from workerclient, its past from checkpoint.
// Read run.go next, then train.go, save.go and the arithmetic in package model.
package main
