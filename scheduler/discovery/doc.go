// Package discovery says where a cluster's servers are: addresses only, never
// truth about the cluster, which Raft alone holds.
//
// Its main type is [Server]; [Parse] reads the static list that every server
// and client is given. It must not be asked who leads: the servers tell that
// themselves. Read next: scheduler/replica.
package discovery
