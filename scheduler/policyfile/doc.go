// Package policyfile turns the policy file, the YAML that an admin writes, into
// a cluster.Policy and back.
//
// Its two functions are [Parse], which tells all problems of a file at once
// with line and column, and [Format], whose text Parse reads as the same
// policy. Servers and the simulator read the same files; [ForServers] says what
// only the simulator can do. The package only converts: what a policy means is
// cluster's and the planner's business, and it does no I/O. Read next:
// sections.go (the table of fields), queues.go, docs/policy.md.
package policyfile
