// Package keeper looks after checkpoints that programs write as files of their own: it commits directories that a program has
// renamed to step-N, also when the program ended right after, and finds what the next start resumes from.
//
// Its main type is Keeper; Resume is for launches. It must not know workers or the scheduler beyond their keys, must not touch
// directories of other names, and must not stop anything: an error is logged and tried again.
//
// Read next: watch.go for the commit, resume.go for the launch, ../../checkpoint/files.go for what a commit is.
package keeper
