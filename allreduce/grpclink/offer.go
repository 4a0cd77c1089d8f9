package grpclink

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// offer waits for the previous rank's data connection, if it makes one.
type offer struct {
	want   string       // the proof that it must show
	answer string       // the proof that it gets
	socket net.Listener // a Unix one; nil where there is none
	came   chan net.Conn
	gone   chan struct{} // closed when nobody waits any more
	once   sync.Once     // closes gone
}

// newOffer makes an offer; take is given what connects to its Unix socket.
func newOffer(p Path, take func(net.Conn)) *offer {
	o := &offer{came: make(chan net.Conn, 1), gone: make(chan struct{})}
	if !p.wants(PathUnix) {
		return o
	}
	// An abstract name: nothing to remove, and nobody can guess it.
	socket, err := net.Listen("unix", "@gangline-ring-"+newNonce())
	if err != nil {
		return o // no Unix sockets here: the other ways are left
	}
	o.socket = socket
	go func() { // ends when the socket is closed
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			var first [1]byte
			_ = conn.SetReadDeadline(time.Now().Add(dataTimeout)) // the read says so
			if _, err := io.ReadFull(conn, first[:]); err != nil || first[0] != dataMarker {
				_ = conn.Close()
				continue
			}
			keepNear(conn)
			take(conn)
		}
	}()
	return o
}

func (o *offer) close() {
	if o.socket != nil {
		_ = o.socket.Close()
	}
	o.once.Do(func() { close(o.gone) })
	o.drop()
}

// drop closes a connection that nobody took.
func (o *offer) drop() {
	select {
	case conn := <-o.came:
		_ = conn.Close()
	default:
	}
}

// address returns the name of the Unix socket, or nothing.
func (o *offer) address() string {
	if o.socket == nil {
		return ""
	}
	return o.socket.Addr().String()
}

// shownOn reads the proof that a data connection shows, in bounded time.
func shownOn(conn net.Conn, secure *tls.Config) (net.Conn, string, error) {
	_ = conn.SetDeadline(time.Now().Add(dataTimeout)) // what follows says so
	if secure != nil {
		conn = tls.Server(conn, secure)
	}
	shown := make([]byte, proofBytes)
	_, err := io.ReadFull(conn, shown)
	return conn, string(shown), err
}

// admit answers a data connection that has shown its proof, and hands it over.
func (o *offer) admit(conn net.Conn) {
	if _, err := conn.Write([]byte(o.answer)); err != nil {
		_ = conn.Close()
		return
	}
	_ = conn.SetDeadline(time.Time{}) // what follows says so
	select {
	case o.came <- conn:
	default:
		_ = conn.Close()
		return
	}
	select {
	case <-o.gone: // meanwhile: the other side must see its end, and not wait for frames
		o.drop()
	default:
	}
}
