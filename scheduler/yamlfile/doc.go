// Package yamlfile is what the YAML files that people write for Gangline have
// in common: a document with positions, units, and errors that say where they
// are and which word was meant.
//
// Its main function is [Document]. Package jobfile and package policyfile give
// the documents their meaning; this package must know neither. It does no I/O.
// Read next: document.go, units.go, words.go.
package yamlfile
