// Package jobfile reads job files: the YAML form of a job's spec, where every
// field is also a flag of the command line.
//
// Its main functions are [Parse], for a whole file, and [Field.Set], for one
// flag. Errors name the line, the column and what is allowed. The package
// only converts: whether a spec makes sense is cluster.JobSpec.Validate's
// question, asked by the server. It must not talk to a server. Read next:
// fields.go (the table of fields), package yamlfile, docs/job-file.md.
package jobfile
