package memlink

import (
	"io"
	"sync"

	"github.com/gangline/gangline/allreduce"
)

// room is how many frames one direction holds: small, so that tests meet a full
// transport, as over a network.
const room = 4

// Link is one end of a connection in memory. It implements allreduce.Link.
type Link struct {
	out, in chan *allreduce.Frame
	self    *end
	other   *end
}

// end is the state of one side.
type end struct {
	closeOnce  sync.Once
	closed     chan struct{}
	freezeOnce sync.Once
	frozen     chan struct{}
	deafOnce   sync.Once
	deaf       chan struct{}
}

func newEnd() *end {
	return &end{closed: make(chan struct{}), frozen: make(chan struct{}), deaf: make(chan struct{})}
}

var _ allreduce.Link = (*Link)(nil)

// Pair returns the two ends of one connection.
func Pair() (a, b *Link) {
	forward, back := make(chan *allreduce.Frame, room), make(chan *allreduce.Frame, room)
	endA, endB := newEnd(), newEnd()
	return &Link{out: forward, in: back, self: endA, other: endB},
		&Link{out: back, in: forward, self: endB, other: endA}
}

// Ends are the two links of one rank.
type Ends struct {
	Next, Prev *Link
}

// Ring connects n ranks, n >= 2, each to the next and the last to the first.
func Ring(n int) []Ends {
	ends := make([]Ends, n)
	for r := range ends {
		next := (r + 1) % n
		ends[r].Next, ends[next].Prev = Pair()
	}
	return ends
}

// Freeze makes this end behave like that of a stopped process: from now on it
// takes no frame in and sends none out, and its calls wait until it is closed.
// The other end notices nothing but silence.
func (l *Link) Freeze() { l.self.freezeOnce.Do(func() { close(l.self.frozen) }) }

// Deafen makes this end take no frame in any more, while it still sends.
func (l *Link) Deafen() { l.self.deafOnce.Do(func() { close(l.self.deaf) }) }

// Send implements allreduce.Link.
func (l *Link) Send(f *allreduce.Frame) error {
	if err := l.thaw(); err != nil {
		return err
	}
	select {
	case <-l.other.closed:
		return io.ErrClosedPipe
	default:
	}
	select {
	case l.out <- f:
		return nil
	case <-l.self.frozen:
		return l.thaw()
	case <-l.self.closed:
		return io.ErrClosedPipe
	case <-l.other.closed:
		return io.ErrClosedPipe
	}
}

// Recv implements allreduce.Link.
func (l *Link) Recv() (*allreduce.Frame, error) {
	if err := l.thaw(); err != nil {
		return nil, err
	}
	select {
	case <-l.self.deaf:
		<-l.self.closed
		return nil, io.ErrClosedPipe
	default:
	}
	select {
	case f := <-l.in:
		return f, nil
	case <-l.self.frozen:
		return nil, l.thaw()
	case <-l.self.deaf:
		<-l.self.closed
		return nil, io.ErrClosedPipe
	case <-l.self.closed:
		return nil, io.ErrClosedPipe
	case <-l.other.closed:
		select {
		case f := <-l.in: // sent before the other end closed
			return f, nil
		default:
			return nil, io.EOF
		}
	}
}

// Close implements allreduce.Link. Frames already sent stay readable.
func (l *Link) Close() error {
	l.self.closeOnce.Do(func() { close(l.self.closed) })
	return nil
}

// thaw returns nil at once if the end works, or an error once a closed or
// frozen end is closed.
func (l *Link) thaw() error {
	select {
	case <-l.self.closed:
		return io.ErrClosedPipe
	default:
	}
	select {
	case <-l.self.frozen:
		<-l.self.closed
		return io.ErrClosedPipe
	default:
		return nil
	}
}

// Faces reports whether the other end of the connection is this one.
func (l *Link) Faces(other *Link) bool { return l.other == other.self }
