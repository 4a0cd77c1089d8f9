package grpclink

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink/h2stream"
)

// dataMarker is the first byte of a data connection. HTTP/2 begins with 'P' and a TLS record with 0x16.
const dataMarker = 0xD1

// sortTimeout bounds how long a connection may be silent before its first byte: who dials a rank speaks first.
const sortTimeout = 5 * time.Second

// acceptPause lets file descriptors come free before the next try.
const acceptPause = 50 * time.Millisecond

// port shares a rank's listener between gRPC and data connections, by the first byte of each.
type port struct {
	listener net.Listener
	creds    credentials.TransportCredentials  // grpc-go gets connections after their handshake
	data     func(net.Conn)                    // takes a data connection over, its first byte read
	rpc      func(conn net.Conn, begun []byte) // takes over the connection of a stream of the ring, of which so much was read; nil: grpc-go serves those too

	calls chan net.Conn
	ended chan struct{}
	once  sync.Once
	wait  sync.WaitGroup
}

func newPort(listener net.Listener, creds credentials.TransportCredentials, data func(net.Conn), rpc func(net.Conn, []byte)) *port {
	return &port{listener: listener, creds: creds, data: data, rpc: rpc, calls: make(chan net.Conn), ended: make(chan struct{})}
}

// start begins to accept connections. Close waits for what does so too: a connection that has just come could else be sorted after Close has returned.
func (p *port) start() { p.wait.Go(p.run) }

// run accepts connections until Close.
func (p *port) run() {
	for {
		conn, err := p.listener.Accept()
		if err == nil {
			p.wait.Go(func() { p.sort(conn) })
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case <-p.ended:
			return
		case <-time.After(acceptPause):
		}
	}
}

// sort finds out whom a connection is for, and passes it on, or drops it.
func (p *port) sort(conn net.Conn) {
	free := p.watch(conn)
	p.within(conn, sortTimeout)
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		free()
		_ = conn.Close()
		return
	}
	keepNear(conn)
	if first[0] == dataMarker {
		free()
		p.data(conn)
		return
	}
	p.within(conn, sortTimeout)
	begun := &begunConn{Conn: conn, first: first[:], from: &arrival{Addr: conn.RemoteAddr()}}
	ready, _, err := p.creds.ServerHandshake(begun)
	if err != nil {
		free()
		_ = conn.Close()
		return
	}
	ours, read := false, []byte(nil)
	if p.rpc != nil {
		p.within(conn, sortTimeout)
		if ready == net.Conn(begun) { // no TLS
			ready, read = conn, begun.first
		}
		read, ours = h2stream.Sort(ready, read, linkMethod)
	}
	free()
	if ours {
		p.rpc(ready, read)
		return
	}
	if ready == conn {
		begun.first, ready = nil, begun
	}
	select {
	case p.calls <- &shakenConn{Conn: ready, read: read}:
	case <-p.ended:
		_ = ready.Close()
	}
}

// watch lets Close end reads until free, after which they last as long as they like.
func (p *port) watch(conn net.Conn) (free func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // ends at free
		defer close(stopped)
		select {
		case <-p.ended:
			_ = conn.SetReadDeadline(time.Unix(1, 0)) // the reads say so
		case <-stop:
		}
	}()
	return func() {
		close(stop)
		<-stopped
		_ = conn.SetReadDeadline(time.Time{}) // as above
	}
}

// within bounds how long reads may take together.
func (p *port) within(conn net.Conn, limit time.Duration) {
	_ = conn.SetReadDeadline(time.Now().Add(limit)) // the reads say so
	select {
	case <-p.ended: // watch may have come before
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // as above
	default:
	}
}

// Accept implements net.Listener for gRPC.
func (p *port) Accept() (net.Conn, error) {
	select {
	case conn := <-p.calls:
		return conn, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (p *port) Addr() net.Addr { return p.listener.Addr() }

// Close implements net.Listener. It waits for connections that are not sorted yet, and for the last to be accepted.
func (p *port) Close() error {
	p.once.Do(func() { close(p.ended) })
	err := p.listener.Close()
	p.wait.Wait()
	return err
}

// arrival is where a connection of gRPC comes from, which its streams know, and whom to tell what comes on it.
type arrival struct {
	net.Addr
	tell atomic.Pointer[allreduce.Landing] // nil: nobody
}

// tellArrival lets a landing hear of what comes on a stream's connection: gRPC gives away whole messages only.
func tellArrival(s stream, to allreduce.Landing) {
	served, ok := s.(grpc.ServerStream)
	if !ok {
		return
	}
	if from, ok := peer.FromContext(served.Context()); ok {
		if a, ok := from.Addr.(*arrival); ok {
			a.tell.Store(&to)
		}
	}
}

// begunConn gives back the byte that was read to sort the connection.
type begunConn struct {
	net.Conn
	first []byte
	from  *arrival
}

// RemoteAddr implements net.Conn.
func (c *begunConn) RemoteAddr() net.Addr { return c.from }

func (c *begunConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	if to := c.from.tell.Load(); to != nil && n > 0 {
		(*to).Came(n)
	}
	return n, err
}

// shakenConn is a connection after its handshake. It gives back what was read to sort it.
type shakenConn struct {
	net.Conn
	read []byte
}

func (c *shakenConn) Read(b []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(b, c.read)
		c.read = c.read[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
