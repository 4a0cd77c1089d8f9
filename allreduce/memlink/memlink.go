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
	direct  bool            // reads from and writes to vectors
	pool    *allreduce.Pool // for what is read from vectors
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

var _ allreduce.DirectLink = (*Link)(nil)

// Pair returns the two ends of one connection.
func Pair() (a, b *Link) {
	forward, back := make(chan *allreduce.Frame, room), make(chan *allreduce.Frame, room)
	endA, endB := newEnd(), newEnd()
	pool := allreduce.NewPool(allreduce.DefaultChunkBytes)
	return &Link{out: forward, in: back, self: endA, other: endB, pool: pool},
		&Link{out: back, in: forward, self: endB, other: endA, pool: pool}
}

// Ends are the two links of one rank.
type Ends struct {
	Next, Prev *Link
}

// Ring connects n ranks, n >= 2, each to the next and the last to the first. Some ends send from vectors as a data connection does, some read to
// them, some do both or neither, by the rank.
func Ring(n int) []Ends {
	ends := make([]Ends, n)
	for r := range ends {
		next := (r + 1) % n
		ends[r].Next, ends[next].Prev = Pair()
		ends[r].Next.direct, ends[next].Prev.direct = r%2 == 1, next%3 != 1
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
	if f.Placed() {
		panic("memlink: memory of a caller was given to a link that keeps it")
	}
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

// Direct implements allreduce.DirectLink.
func (l *Link) Direct() bool { return l.direct }

// SendDirect implements allreduce.DirectLink.
func (l *Link) SendDirect(f *allreduce.Frame) error {
	if f.Placed() {
		own := l.pool.Get(len(f.Data))
		own.Header = f.Header
		copy(own.Data, f.Data)
		f.Release()
		f = own
	}
	return l.Send(f)
}

// RecvDirect implements allreduce.DirectLink. A payload comes at once, so there is nothing to interrupt.
func (l *Link) RecvDirect(to allreduce.Landing) (*allreduce.Frame, error) {
	f, err := l.Recv()
	if err != nil || !l.direct || len(f.Data) == 0 {
		return f, err
	}
	to.Came(len(f.Data))
	if memory := to.Place(&f.Header, len(f.Data)); memory != nil {
		copy(memory, f.Data)
		f.Place(memory)
		to.Landed()
	}
	return f, nil
}

// Interrupt implements allreduce.DirectLink.
func (l *Link) Interrupt() {}

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
