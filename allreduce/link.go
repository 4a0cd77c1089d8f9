package allreduce

// Link carries frames both ways between this rank and one neighbour, in order
// and at most once. A rank has two: one to the next rank, to which it sends its
// chunks, and one to the previous rank, from which it receives them; heartbeats,
// credits and aborts use both directions of both.
//
// A link need not be connected yet when a Group starts to use it: Send and Recv
// then wait. It has no deadline of its own; the Group closes a link that hears
// nothing for too long, so Close must end every other call on it.
type Link interface {
	// Send passes one frame to the neighbour and takes ownership of it, also
	// when it returns an error. It waits while the transport is full. It is
	// safe for concurrent use.
	Send(f *Frame) error
	// Recv waits for the next frame and passes its ownership to the caller.
	// After an error every later Recv returns an error too. One goroutine
	// at a time may call it.
	Recv() (*Frame, error)
	// Close ends the link. Frames whose Send had returned are still delivered
	// if the neighbour takes them within a short bound. It ends calls to Send
	// and Recv that wait, can be called at any time and more than once, and
	// returns once the link holds no goroutine any more.
	Close() error
}
