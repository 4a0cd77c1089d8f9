package grpclink

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/allreduce"
)

// lingerTime is how long Close lets frames already sent reach the neighbour.
const lingerTime = 500 * time.Millisecond

var errLinkClosed = errors.New("this side closed the link")

// stream is what a client's and a server's gRPC stream have in common.
type stream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// owned is a stream on a connection that this package itself reads and writes: it has copied what it sends when SendMsg returns, and reads payloads straight to
// where they shall lie. That of grpc-go does neither.
type owned interface {
	stream
	interrupt() // wakes a read of a payload
	closeSend() // lets the other side see the end once it has read all that was sent
	close()     // by force
}

var (
	_ owned = (*dataStream)(nil)
	_ owned = (*rpc)(nil)
)

// link is an allreduce.Link over one stream, which may come later than the link.
type link struct {
	pool *allreduce.Pool

	attached chan struct{} // closed once stream or failure is set
	once     sync.Once     // guards the setting
	stream   stream
	failure  error // the stream will never come

	in        slot       // what Recv receives into
	sending   sync.Mutex // held during SendMsg: gRPC allows one at a time
	closed    chan struct{}
	closeOnce sync.Once
	ended     chan struct{} // closed when Recv has seen the stream's end
	endOnce   sync.Once
	finish    func(l *link) // releases what is behind the stream; called once by Close
}

func newLink(pool *allreduce.Pool, finish func(l *link)) *link {
	return &link{
		pool: pool, finish: finish, in: slot{pool: pool},
		attached: make(chan struct{}), closed: make(chan struct{}), ended: make(chan struct{}),
	}
}

var _ allreduce.DirectLink = (*link)(nil)

// attach gives the link its stream, or the reason why there will be none. It
// reports whether it was the first.
func (l *link) attach(s stream, failure error) bool {
	first := false
	l.once.Do(func() {
		first = true
		l.stream, l.failure = s, failure
		close(l.attached)
	})
	return first
}

// connected waits for the stream.
func (l *link) connected() (stream, error) {
	select {
	case <-l.attached:
		return l.stream, l.failure
	default:
	}
	select {
	case <-l.attached:
		return l.stream, l.failure
	case <-l.closed:
		return nil, errLinkClosed
	}
}

// Send implements allreduce.Link. To grpc-go the codec passes the frame's payload, and gets it back when its bytes have left.
func (l *link) Send(f *allreduce.Frame) error {
	if f.Placed() {
		f.Release()
		return errPlaced
	}
	return l.send(f)
}

// Direct implements allreduce.DirectLink.
func (l *link) Direct() bool {
	select {
	case <-l.attached:
		_, direct := l.stream.(owned)
		return direct && allreduce.WireIsNative()
	default:
		return false
	}
}

// SendDirect implements allreduce.DirectLink. The stream of grpc-go refuses a frame that is placed: see codec.
func (l *link) SendDirect(f *allreduce.Frame) error { return l.send(f) }

func (l *link) send(f *allreduce.Frame) error {
	s, err := l.connected()
	if err != nil {
		return err
	}
	l.sending.Lock()
	defer l.sending.Unlock()
	select {
	case <-l.closed:
		return errLinkClosed
	default:
		return inWords(s.SendMsg(f))
	}
}

// inWords says in a person's words how a stream ended: gRPC tells of a neighbour that died by codes of its own, and its
// text would end in the reason of a job. What is no gRPC status stays as it is.
func inWords(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	switch st.Code() {
	case codes.Canceled, codes.Unavailable:
		return &streamError{"the connection ended without a word", err}
	default:
		return &streamError{st.Message(), err}
	}
}

// streamError is a gRPC error under another text.
type streamError struct {
	text  string
	cause error
}

func (e *streamError) Error() string { return e.text }
func (e *streamError) Unwrap() error { return e.cause }

// Recv implements allreduce.Link.
func (l *link) Recv() (*allreduce.Frame, error) { return l.RecvDirect(nil) }

// Interrupt implements allreduce.DirectLink.
func (l *link) Interrupt() {
	if s, ok := l.stream.(owned); ok { // grpc-go's never asks for a place
		s.interrupt()
	}
}

// RecvDirect implements allreduce.DirectLink.
func (l *link) RecvDirect(to allreduce.Landing) (*allreduce.Frame, error) {
	s, err := l.connected()
	if err == nil && to != nil && l.in.landing == nil {
		tellArrival(s, to)
	}
	l.in.landing = to
	if err == nil {
		if err = s.RecvMsg(&l.in); err == nil {
			return l.in.frame, nil
		}
	}
	l.endOnce.Do(func() { close(l.ended) })
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the other side ended the stream without a word: %w", io.ErrUnexpectedEOF)
	}
	return nil, inWords(err)
}

// Close implements allreduce.Link.
func (l *link) Close() error {
	l.closeOnce.Do(func() {
		close(l.closed)
		l.finish(l)
	})
	return nil
}

// endStream ends what frames travel on, if it ever came: in good order if the other side takes part, by force after lingerTime. A
// stream of grpc-go is ended by force with its session.
func (l *link) endStream() {
	select {
	case <-l.attached:
	default:
		return
	}
	l.sayEnd()
	if s, ok := l.stream.(owned); ok {
		s.close() // nothing is left to be told
	}
}

// sayEnd lets the other side see the stream's end after what was sent, and waits, not for long, until it has ended its own.
func (l *link) sayEnd() {
	if !l.sending.TryLock() {
		return // a Send hangs
	}
	s, ok := l.stream.(owned)
	if ok {
		s.closeSend()
	}
	l.sending.Unlock()
	if !ok {
		return // grpc-go's ends when its handler returns
	}
	linger := time.NewTimer(lingerTime)
	defer linger.Stop()
	select {
	case <-l.ended:
	case <-linger.C:
	}
}
