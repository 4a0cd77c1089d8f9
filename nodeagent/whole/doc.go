// Package whole makes, before a job's ranks start, a whole and verified copy of the checkpoint of tensors that they resume from on the node's own disk: files that
// lie here already get a second name, what other nodes' agents have comes from there, the rest from the shared storage.
//
// Its main type is Copies. It must not choose which checkpoint a job resumes from, nor know workers or the scheduler; where there is no room it says so, and the
// ranks read the same checkpoint where it is.
//
// Read next: copies.go for one copy, sources.go for where its bytes come from, ../../checkpoint/receivefile.go for how a copy that was cut goes on.
package whole
