package socket

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// Whether a worker's process still lives is known from its connections: gRPC pings one on which nothing comes, the program's side answers from a
// thread of its own, whatever the training does, and one that does not answer is closed. A process that has ended closes its connections itself. So
// one whose last connection was closed from here hangs: it was stopped, or its machine keeps it from running. A program that computes for an hour
// between two calls does not, nor does one that never connected.

const (
	// pingEvery is the least that gRPC allows.
	pingEvery = time.Second
	// pulseTimeout is how long an answer may take. In all a process that hangs is found after 2.5 to 3.5 s: long enough for a busy machine's pauses, of
	// which the leader makes nothing unless the worker's peers have lost it.
	pulseTimeout = 1500 * time.Millisecond
)

// pinging are the options of the server of a worker's socket.
func pinging(timeout time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: timeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingEvery, PermitWithoutStream: true}),
	}
}

// pulse is what is known of a worker's process from its connections.
type pulse struct {
	mu   sync.Mutex // guards open, and the order in which silence and words are noted; taken before the endpoint's mu
	open int        // connections
}

// pulseListener tells the endpoint of connections.
type pulseListener struct {
	net.Listener
	e *endpoint
}

// Accept implements net.Listener.
func (l *pulseListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	p := &l.e.pulse
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
	return &pulseConn{Conn: conn, e: l.e}, nil
}

// pulseConn is a connection of a worker.
type pulseConn struct {
	net.Conn
	e     *endpoint
	heard atomic.Bool // something came on it
	left  atomic.Bool // the worker closed it
	once  sync.Once
}

// Read implements net.Conn.
func (c *pulseConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.heard.CompareAndSwap(false, true) {
		p := &c.e.pulse // one that hangs can be connected to by its kernel's leave, but says nothing
		p.mu.Lock()
		news := c.e.setSilent(false)
		p.mu.Unlock()
		c.e.tell(news)
	}
	c.look(err)
	return n, err
}

// Write implements net.Conn.
func (c *pulseConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.look(err)
	return n, err
}

// look notes if an error says that the worker has closed the connection.
func (c *pulseConn) look(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		c.left.Store(true)
	}
}

// Close implements net.Conn.
func (c *pulseConn) Close() error {
	c.once.Do(func() {
		hangs := c.heard.Load() && !c.left.Load() && c.e.served()
		p := &c.e.pulse
		p.mu.Lock()
		p.open--
		news := hangs && p.open == 0 && c.e.setSilent(true)
		p.mu.Unlock()
		c.e.tell(news)
	})
	return c.Conn.Close()
}

// served reports whether the worker's socket is to stay open.
func (e *endpoint) served() bool {
	e.server.mu.Lock()
	defer e.server.mu.Unlock()
	return e.grpc != nil && !e.server.closed
}

// setSilent notes whether the worker's process answers, and reports if that is news. The caller holds pulse.mu: else the end of one connection could be
// noted after the first word on the next, and nothing would come that puts it right.
func (e *endpoint) setSilent(silent bool) (news bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	news = e.notes.GetSilent() != silent
	if news {
		e.notes.Silent, e.dirty = silent, true
	}
	return news
}

// tell has the leader hear of news. No lock is held.
func (e *endpoint) tell(news bool) {
	if news {
		e.server.cfg.Changed()
	}
}
