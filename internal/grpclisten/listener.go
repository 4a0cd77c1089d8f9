package grpclisten

import (
	"net"
	"sync"
	"time"
)

// Wrap returns a listener for [google.golang.org/grpc.Server.Serve] whose Close also closes the connections that are in their handshake.
// Connections over which calls may be under way it leaves to the server. All methods may be called concurrently.
func Wrap(l net.Listener) net.Listener { return &listener{Listener: l, open: map[*conn]struct{}{}} }

type listener struct {
	net.Listener

	mu     sync.Mutex
	closed bool
	open   map[*conn]struct{} // in their handshake
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, from: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = raw.Close() // nobody has used it
		return nil, net.ErrClosed
	}
	l.open[c] = struct{}{}
	return c, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.open {
		_ = c.Conn.Close() // its handshake says so
	}
	clear(l.open)
	return err
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// conn is a connection as gRPC gets it.
type conn struct {
	net.Conn
	from *listener
}

// SetDeadline implements net.Conn. A server bounds the handshake by a deadline, and takes it back when that is over.
func (c *conn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		c.from.forget(c)
	}
	return c.Conn.SetDeadline(t)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.from.forget(c)
	return c.Conn.Close()
}
