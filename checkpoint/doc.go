// Package checkpoint saves and finds the training state of a job on a shared directory, so that a checkpoint
// is either whole and verified or absent.
//
// Its main type is Store. In each epoch a rank calls Store.Fence, one rank finds where to resume with Store.Latest, and
// all read what they need, of any world size, with a Reader. At a checkpoint every rank calls Store.WriteShard; once all have
// succeeded (a barrier tells), one rank calls Store.Commit, and now and then Store.Collect.
//
// The package must not know the scheduler, the network or the clock, must not start goroutines that outlive a call, and
// must not log: it returns reasons. It never trusts a byte it reads.
//
// Read next: DESIGN.md for the format and the rules, commit.go for the commit, fence.go for late writers, refer.go and uses.go for tensors that
// have not changed, encoding.go for compression and encryption, crash_test.go and crashes_test.go for the proof.
package checkpoint
