// Package faultfs is an in-memory checkpoint.FS that fails on request, for tests: full disk, error at the nth
// operation, torn write, flipped bit, slow operation, and loss of power. Its main type is FS.
//
// After Crash only what was synced is certain: file contents by WriteFile.Sync, names by SyncDir. The rest is gone, or stays in part,
// as CrashMode says. It must not be used for data that anybody needs. Read next: checkpoint/crash_test.go.
package faultfs
