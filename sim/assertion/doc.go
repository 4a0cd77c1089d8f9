// Package assertion says what must hold of replays: a file names a workload, ways to replay it, and assertions such as
// "queue research p95_wait < 10m", for those who keep a policy as they keep code.
//
// Its main types are [File], which [Parse] reads, and [Collector], which watches a replay; [File.Judge] says what held.
// It runs no replay and opens no file: the settings of a run are words that the command line gives their meaning.
//
// Read next: file.go (the file), expression.go (assertions), collect.go (what is measured), judge.go, junit.go, then
// sim/replay.
package assertion
