// Package point names the places in the work of a rank at which tests lose it: before and after each thing that other ranks can notice.
//
// Main type: [Point]. allreduce.Config.Probe is called with one at each of them, on the goroutine that is there, and without a lock held: so a test can
// count all points of a run, and then kill or stop a rank at each. It must not know what ranks do. Read next: every_test.go in package allreduce.
package point

// Point is a kind of place; a rank passes the same one many times.
type Point uint8

// The points of a group.
const (
	CallBegins     Point = iota // before anything of a call
	CallEnds                    // all of a call is done, but it has not returned
	ChunkSends                  // ring: a frame is ready, and goes to the next rank
	ChunkSent                   // it went
	ChunkTaken                  // a frame from the previous rank is there, and not yet worked in
	ChunkWorkedIn               // it is, and is neither sent on nor credited
	Heard                       // the reader of a link has a frame of any kind
	Beats                       // before a heartbeat
	SaysBye                     // the group has ended here, and the neighbour does not know
	WireDials                   // before a link to a rank that need not be a neighbour is opened
	WireOpen                    // it is open, and nothing was sent on it
	WireSends                   // doubling, Send: a frame is ready, and goes to a rank
	WireSent                    // it went
	WireTaken                   // doubling, Recv: a frame of a rank is there, and not yet worked in
	QueueServes                 // a call that was started comes to its turn
	CardShown                   // shared memory: this rank has said what it calls, and has not come
	Staged                      // its elements are where the others see them, and it has not come
	Met                         // all have come
	Combined                    // it has made its part of the result, and has not said so
	Copied                      // it has taken the others' parts of a block
	NodesCombined               // machines: all of this machine is combined, the others not
	AcrossCombined              // machines: all is combined at the leaders, the others of the machine do not have it
)

// The points of a rank that joins.
const (
	GreetDials    Point = iota + 64 // before a neighbour is dialled
	GreetSaid                       // this rank's hello is on its way
	GreetKnown                      // the other has proved who it is
	PathDialled                     // the data connection is there, or none, and the other does not know the choice
	PathChosen                      // the choice is on its way
	HelloHeard                      // another rank's hello is here, and not answered
	HelloAnswered                   // it is
	ProofHeard                      // the other has proved who it is and chosen a path
	Attached                        // the link from the other is part of the ring
	PlacesTold                      // all know which ranks are on which machine
	MemoryMade                      // this rank has made the shared memory, and nobody knows
	MemoryJoined                    // it has what another made, and nobody knows
	MemoryAgreed                    // all have it, or none
)

var names = [...]string{ //nolint:gochecknoglobals // table
	CallBegins: "a call begins", CallEnds: "a call ends", ChunkSends: "a chunk is sent", ChunkSent: "a chunk was sent", ChunkTaken: "a chunk was taken",
	ChunkWorkedIn: "a chunk was worked in", Heard: "a frame is heard", Beats: "a heartbeat", SaysBye: "bye is said", WireDials: "a wire is dialled",
	WireOpen: "a wire is open", WireSends: "a frame is sent on a wire", WireSent: "a frame was sent on a wire", WireTaken: "a frame was taken from a wire",
	QueueServes: "a started call has its turn", CardShown: "a card was shown", Staged: "elements were staged", Met: "all have come",
	Combined: "a part was combined", Copied: "parts were copied", NodesCombined: "a machine has combined", AcrossCombined: "machines have combined",
	GreetDials: "a neighbour is dialled", GreetSaid: "hello was said", GreetKnown: "a neighbour has proved itself", PathDialled: "a path was dialled",
	PathChosen: "a path was chosen", HelloHeard: "a hello was heard", HelloAnswered: "a hello was answered", ProofHeard: "a proof was heard",
	Attached: "a link is part of the ring", PlacesTold: "places were told", MemoryMade: "memory was made", MemoryJoined: "memory was joined",
	MemoryAgreed: "memory was agreed on",
}

// String says what happens there.
func (p Point) String() string {
	if int(p) < len(names) && names[p] != "" {
		return names[p]
	}
	return "no point"
}

// All returns the points of a group, and those of a rank that joins.
func All() (group, join []Point) {
	for p := CallBegins; p <= AcrossCombined; p++ {
		group = append(group, p)
	}
	for p := GreetDials; p <= MemoryAgreed; p++ {
		join = append(join, p)
	}
	return group, join
}
