package allreduce

import "errors"

// ErrMemory is why a frame did not travel: its payload lies at addresses that cannot be read, or shall lie where nothing can be written.
var ErrMemory = errors.New("the vector's memory cannot be read or written")

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

// DirectLink is a Link that can read payloads from memory of a group's caller and write them to it, without a copy between. It holds
// none of that memory once the method that was given it has returned.
type DirectLink interface {
	Link
	// Direct says whether SendDirect can be used: what frames travel on may be known only when the link is connected. Once true, it stays so.
	Direct() bool
	// SendDirect is Send of a frame that may be Placed. When it returns, with an error too, nothing will read the payload any more. The error
	// is ErrMemory if that could not be read.
	SendDirect(f *Frame) error
	// RecvDirect is Recv that asks for each payload where it shall lie, and tells how it comes. The frame is Placed if it lies there. It never faults:
	// if nothing can be written there it reads what is left of the payload to the frame's own memory, by Displace, as it does after Interrupt.
	RecvDirect(to Landing) (*Frame, error)
	// Interrupt makes a RecvDirect that waits for the rest of a payload call Landed and read the rest to memory of its own. It may be called between Place and
	// Landed only.
	Interrupt()
}

// Landing says where payloads shall lie. Its methods may be called by several goroutines.
type Landing interface {
	// Came says that so many bytes of frames have come, of a frame that is not whole yet too.
	Came(n int)
	// Place returns memory for the payload of a frame, exactly as long, or nil: it goes to the frame's own. The link may write to it until it calls
	// Landed, which it does once for each memory that it got.
	Place(h *Header, size int) []byte
	// Landed says whether Interrupt was called since Place.
	Landed() (interrupted bool)
}
