// Package storage watches whether the checkpoints' storage works, as a node sees it: slow, full, read-only, stale, not there, or silent.
//
// Its main type is Monitor. It writes a few bytes now and then and times it; it never touches a checkpoint, stops nothing, and waits for nothing that hangs: one
// probe is under way at most, and that it does not end is what it tells.
//
// Read next: monitor.go.
package storage
