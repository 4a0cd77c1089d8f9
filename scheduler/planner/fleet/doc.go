// Package fleet knows what is free on the nodes, and chooses nodes for a gang.
//
// Its main type is [Fleet], an index that is told of every node that changed
// ([Fleet.Put]) and then answers at a cost that follows what changed and not
// the size of the cluster: does a gang fit ([Fleet.May]), where does it go
// ([Fleet.Place]), on which GPUs ([Fleet.Workers]), and why not ([Fleet.Why]).
// What would be if some jobs were gone is tried between [Fleet.Mark] and
// [Fleet.Undo].
//
// It is pure, and its choices depend on the nodes as they are, never on the
// order in which they came: an index built anew chooses the same nodes. It
// knows nothing of queues' quotas, priorities or who comes next.
//
// How it is fast: what is free is kept by position of the node in order of id,
// in sets of bits ([Fleet.Type] counts them). Requests that need the same beside
// a GPU share a view, with the nodes by how many GPUs such requests could have
// there. What is kept for others is a set that is taken away. Scores are looked
// up by kinds of nodes. Views and kinds read the nodes that have changed when
// they are asked, so that what nobody asks costs nothing.
//
// Read next: shape.go (what is asked), place.go (the rules of choice), pack.go
// (which nodes), score.go and outlook.go (what a node is worth), why.go (why
// not), then scheduler/planner.
package fleet
