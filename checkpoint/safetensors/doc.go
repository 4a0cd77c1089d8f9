// Package safetensors brings checkpoints into and out of the safetensors format, which most training and inference
// programs read: one file with a JSON header and the tensors' bytes one after another
// (https://huggingface.co/docs/safetensors has the format).
//
// Its main functions are Export and Import. It trusts no byte of a file that it reads, and holds only a part of a tensor in memory when it
// exports. It knows nothing of jobs beyond what a checkpoint's manifest says.
//
// Read next: header.go for the format, ../DESIGN.md for checkpoints.
package safetensors
