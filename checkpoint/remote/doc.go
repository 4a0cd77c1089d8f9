// Package remote keeps copies of complete checkpoints in an object store, and brings them back.
//
// Its main functions are Push and Pull. A checkpoint's files are objects below JOB/CHECKPOINT/, and its manifest comes last and only if none is
// there: that put is the commit, since object stores have no rename. Every chunk is verified before it leaves and when it comes back.
//
// Collect removes old copies, and View shows copies as a directory that can only be read.
//
// Bucket is the part of an object store that is needed: OpenS3 gives a real one, Memory one for tests. The package knows no
// credentials beyond what minio-go finds.
//
// Read next: push.go, pull.go, collect.go, s3.go; ../receive.go writes what comes back.
package remote
