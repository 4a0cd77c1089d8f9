// Package torchfile writes checkpoints of tensors as PyTorch's own files: what torch.load reads, also with weights_only.
//
// Its one function is Export. It reads no such files, because they are programs: a pickle that is loaded runs. It must not write a tensor that has not been verified.
//
// Read next: export.go, pickle.go.
package torchfile
