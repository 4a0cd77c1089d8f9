package grpclink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/internal/point"
)

// lingerTime is how long Close lets frames already sent reach the neighbour.
const lingerTime = 500 * time.Millisecond

var errLinkClosed = errors.New("this side closed the link")

// stream is what a client's and a server's gRPC stream have in common.
type stream interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

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

// Send implements allreduce.Link. The codec passes the frame's payload to gRPC,
// which gives it back to the frame's pool when its bytes have left.
func (l *link) Send(f *allreduce.Frame) error {
	if f.Placed() {
		f.Release()
		return errPlaced
	}
	return l.send(f)
}

// Direct implements allreduce.DirectLink: a data connection has copied what it sends when it returns.
func (l *link) Direct() bool {
	select {
	case <-l.attached:
		_, direct := l.stream.(*dataStream)
		return direct && allreduce.WireIsNative()
	default:
		return false
	}
}

// SendDirect implements allreduce.DirectLink. The stream of gRPC refuses a frame that is placed: see codec.
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
	if s, ok := l.stream.(*dataStream); ok { // gRPC's own stream never asks for a place
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

// dialer opens the link to the next rank.
type dialer struct {
	cfg    Config
	rank   int            // the next rank, or another that a wire leads to
	lane   allreduce.Lane // of a wire; 0: the ring's link
	addr   string
	conn   *grpc.ClientConn
	pool   *allreduce.Pool
	ctx    context.Context //nolint:containedctx // the life of the stream, ended by Close
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	last    error // why the last try did not work
	refused error // what the neighbour itself last answered, if it ever did
}

// refusedError is why the neighbour does not take this rank, in its own word, or this rank not it. What comes later, such as that
// it has gone, tells less.
type refusedError struct{ cause string }

func (e *refusedError) Error() string { return e.cause }

// redialPause is short beside a worker's start, and long enough that waiting
// for a rank costs nothing.
const redialPause = 50 * time.Millisecond

// run tries until the neighbour greets back, refuses for good, or Close.
func (d *dialer) run(l *link) {
	defer close(d.done)
	for d.ctx.Err() == nil {
		s, err := d.try()
		if err == nil {
			l.attach(s, nil)
			return
		}
		if errors.Is(err, errNoPath) { // agreed on by nobody: the ranks were told different things
			l.attach(nil, err)
			return
		}
		var fenced *allreduce.FencedError
		if errors.As(err, &fenced) && fenced.Late() {
			l.attach(nil, err) // we are the late one, no waiting helps
			return
		}
		d.note(err)
		pause := time.NewTimer(redialPause)
		select {
		case <-pause.C:
		case <-d.ctx.Done():
			pause.Stop()
		}
	}
}

// errNoPath says that the path which was asked for cannot be had.
var errNoPath = errors.New("the path that was asked for cannot be had")

// timedOut tells whether a data connection failed for want of time.
func timedOut(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)
}

// try opens a stream, exchanges greetings and agrees on what frames travel on.
func (d *dialer) try() (stream, error) {
	ctx, cancel := context.WithCancel(d.ctx)
	s, met, err := d.greet(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	context.AfterFunc(s.Context(), cancel) // the stream owns ctx from here
	conn, path, why := d.dialData(ctx, met)
	d.cfg.at(point.PathDialled)
	if path == PathGRPC && d.cfg.Path.own() {
		cancel()
		if timedOut(why) {
			return nil, fmt.Errorf("no data connection within %v: %w", dataTimeout, why) // the machine is busy: it is tried again
		}
		return nil, fmt.Errorf("%w: %w", errNoPath, why)
	}
	chosen := d.cfg.hello()
	chosen.Kind, chosen.Socket, chosen.Proof = allreduce.KindPath, string(path), met.prove(roleClient, string(path))
	if err := s.SendMsg(&allreduce.Frame{Header: chosen}); err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		cancel()
		return nil, err
	}
	d.cfg.at(point.PathChosen)
	if conn == nil {
		return s, nil
	}
	return newDataStream(conn, d.pool), nil
}

// greet opens a stream and exchanges greetings. The next rank has proved that it knows the secret when it returns without an error.
func (d *dialer) greet(ctx context.Context) (grpc.ClientStream, *session, error) {
	met := &session{secret: d.cfg.Secret, client: d.cfg.hello()}
	met.client.Token, met.client.Index = newNonce(), uint64(d.lane)
	d.cfg.at(point.GreetDials)
	s, err := d.conn.NewStream(ctx, streamDesc(nil), linkMethod)
	if err == nil {
		err = s.SendMsg(&allreduce.Frame{Header: met.client})
		d.cfg.at(point.GreetSaid)
	}
	answer := slot{pool: d.pool}
	if err == nil || errors.Is(err, io.EOF) {
		err = s.RecvMsg(&answer)
	}
	if err != nil {
		return nil, nil, err
	}
	h := answer.frame.Header
	answer.frame.Release()
	switch {
	case h.Job != d.cfg.Job || h.Epoch != d.cfg.Epoch || h.Formation != d.cfg.Formation:
		return nil, nil, d.cfg.fenced(h, d.cfg.hello())
	case h.Kind == allreduce.KindRefuse:
		return nil, nil, &refusedError{h.Cause}
	case h.Kind != allreduce.KindHello:
		return nil, nil, fmt.Errorf("who answers at %s sent a frame of kind %d, want a hello", d.addr, h.Kind)
	case h.Rank != d.rank:
		return nil, nil, fmt.Errorf("who answers at %s is rank %d, want rank %d: check the order of peers", d.addr, h.Rank, d.rank)
	}
	met.server = h
	met.server.Proof = ""
	if !met.proves(roleServer, "", h.Proof) {
		return nil, nil, &refusedError{fmt.Sprintf("who answers at %s as rank %d does not know the group's secret", d.addr, d.rank)}
	}
	d.cfg.at(point.GreetKnown)
	return s, met, nil
}

// finish ends the stream to the next rank: in good order if it takes part, by
// force after lingerTime.
func (d *dialer) finish(l *link) {
	l.endStream()
	d.cancel()
	<-d.done
	_ = d.conn.Close() // only says that it was closed before
}

// endStream ends what frames travel on, if it ever came: in good order if the other side takes part, by force after lingerTime. A
// stream of gRPC is ended by force with its session.
func (l *link) endStream() {
	select {
	case <-l.attached:
	default:
		return
	}
	l.sayEnd()
	if s, ok := l.stream.(*dataStream); ok {
		_ = s.conn.Close() // nothing is left to be told
	}
}

// sayEnd lets the other side see the stream's end after what was sent, and waits, not for long, until it has ended its own.
func (l *link) sayEnd() {
	if !l.sending.TryLock() {
		return // a Send hangs
	}
	switch s := l.stream.(type) {
	case grpc.ClientStream:
		_ = s.CloseSend() // its error would say that the stream has ended
	case *dataStream:
		s.closeSend()
	default:
		l.sending.Unlock()
		return
	}
	l.sending.Unlock()
	linger := time.NewTimer(lingerTime)
	defer linger.Stop()
	select {
	case <-l.ended:
	case <-linger.C:
	}
}

// note remembers why a try did not work, unless it was our own Close.
func (d *dialer) note(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	d.last = err
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		d.refused = err
	}
}

// lastError says why the neighbour was not reached: by its own word if there
// is one, since a rank that gave up before us can only be found absent.
func (d *dialer) lastError() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused != nil {
		return d.refused
	}
	return d.last
}
