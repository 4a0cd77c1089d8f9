// Package ckptbench measures checkpoints beside the disk itself and beside PyTorch, in one run: ranks are processes of their own, as
// users have them, and each round measures everything once, so that a busy machine slows all alike.
//
// Its main function is Run; RankMain is what the processes of ranks run. Figures of a run mean something in proportion to each other.
//
// Read next: bench.go for the rounds, rank.go for what is timed, peer.py for what PyTorch does.
package ckptbench
