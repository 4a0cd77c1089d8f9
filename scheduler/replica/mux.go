package replica

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// raftMarker is the first byte of a Raft connection. HTTP/2 begins with 'P', a
// TLS record with 0x16, and no HTTP method begins with a byte above 0x7f.
const raftMarker = 0xE7

const (
	firstByteTimeout = 5 * time.Second // clients of both kinds speak first, at once
	maxHalfOpen      = 1024            // connections not yet sorted; beyond it the oldest goes
	acceptPause      = 50 * time.Millisecond
	raftALPN         = "gangline-raft"
)

// MuxConfig says how a Mux treats Raft's connections.
type MuxConfig struct {
	// TLS encrypts Raft's connections in both directions; nil: plain text. It
	// needs a certificate valid for server and client use, and RootCAs. With
	// ClientCAs set, a peer must show a certificate that they signed. The other
	// connections are passed on as they come: their server does its own TLS.
	TLS    *tls.Config
	Logger *slog.Logger // nil: slog.Default
}

// Mux shares one listener between Raft and the API by the first byte of each
// connection. A client that connects and says nothing delays nobody.
type Mux struct {
	ln   net.Listener
	cfg  MuxConfig
	raft *muxHalf
	grpc *muxHalf
	wg   sync.WaitGroup

	mu      sync.Mutex
	closing bool
	half    *list.List // of net.Conn, oldest first
}

// NewMux starts to sort the connections of ln, which it owns from now on.
func NewMux(ln net.Listener, cfg MuxConfig) *Mux {
	cfg.Logger = orDefault(cfg.Logger, slog.Default())
	m := &Mux{ln: ln, cfg: cfg, raft: newMuxHalf(ln.Addr()), grpc: newMuxHalf(ln.Addr()), half: list.New()}
	m.wg.Go(m.serve)
	return m
}

// Raft returns the layer for Open. Closing it leaves the API's half alone.
func (m *Mux) Raft() raft.StreamLayer { return &muxLayer{muxHalf: m.raft, m: m} }

// GRPC returns the listener for all other connections. Closing it leaves
// Raft's half alone.
func (m *Mux) GRPC() net.Listener { return m.grpc }

// Close closes the listener, both halves and the connections that are not
// sorted yet, and waits for its goroutines. Sorted ones are their users'.
func (m *Mux) Close() error {
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		return nil
	}
	m.closing = true
	for e := m.half.Front(); e != nil; e = e.Next() {
		_ = e.Value.(net.Conn).Close()
	}
	m.mu.Unlock()
	err := m.ln.Close()
	_, _ = m.raft.Close(), m.grpc.Close() // cannot fail
	m.wg.Wait()
	return err
}

func (m *Mux) serve() {
	for {
		conn, err := m.ln.Accept()
		if err == nil {
			if e, ok := m.track(conn); ok {
				m.wg.Go(func() { m.sort(conn, e) })
			}
			continue
		}
		if m.isClosing() || errors.Is(err, net.ErrClosed) {
			return
		}
		m.cfg.Logger.Warn("accept connection", "address", m.ln.Addr().String(), "error", err)
		time.Sleep(acceptPause) // out of file descriptors, most likely
	}
}

func (m *Mux) isClosing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closing
}

// track counts a connection as half open and drops the oldest beyond the bound.
func (m *Mux) track(conn net.Conn) (*list.Element, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		_ = conn.Close()
		return nil, false
	}
	if m.half.Len() >= maxHalfOpen {
		_ = m.half.Remove(m.half.Front()).(net.Conn).Close()
	}
	return m.half.PushBack(conn), true
}

// untrack ends that; the connection now has an owner or is closed.
func (m *Mux) untrack(e *list.Element) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.half.Remove(e) // does nothing if track dropped it
}

// sort reads the first byte and gives the connection to its half.
func (m *Mux) sort(conn net.Conn, e *list.Element) {
	defer m.untrack(e)
	var first [1]byte
	_ = conn.SetDeadline(time.Now().Add(firstByteTimeout)) // fails only on a closed connection, as does Read
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		_ = conn.Close()
		return
	}
	half, ready := m.grpc, net.Conn(&replayConn{Conn: conn, first: first[0], pending: true})
	if first[0] == raftMarker {
		var err error
		if half, ready, err = m.secure(conn); err != nil {
			m.cfg.Logger.Warn("Raft connection refused", "remote", conn.RemoteAddr().String(), "error", err)
			_ = conn.Close()
			return
		}
	}
	_ = conn.SetDeadline(time.Time{})
	if !half.deliver(ready) {
		_ = conn.Close()
	}
}

// secure does the server's side of TLS, if it is configured.
func (m *Mux) secure(conn net.Conn) (*muxHalf, net.Conn, error) {
	if m.cfg.TLS == nil {
		return m.raft, conn, nil
	}
	cfg := m.cfg.TLS.Clone()
	cfg.NextProtos = []string{raftALPN}
	if cfg.ClientCAs != nil {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	secured := tls.Server(conn, cfg)
	ctx, cancel := context.WithTimeout(context.Background(), firstByteTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	return m.raft, secured, nil
}

// muxHalf is the listener of one kind of connection.
type muxHalf struct {
	addr   net.Addr
	ready  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newMuxHalf(addr net.Addr) *muxHalf {
	return &muxHalf{addr: addr, ready: make(chan net.Conn), closed: make(chan struct{})}
}

// deliver waits until someone accepts the connection; false if nobody will.
func (h *muxHalf) deliver(conn net.Conn) bool {
	select {
	case h.ready <- conn:
		return true
	case <-h.closed:
		return false
	}
}

// Accept returns the next connection of this kind, or net.ErrClosed.
func (h *muxHalf) Accept() (net.Conn, error) {
	select {
	case c := <-h.ready:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close makes Accept return net.ErrClosed.
func (h *muxHalf) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr returns the address that is listened on.
func (h *muxHalf) Addr() net.Addr { return h.addr }

// muxLayer is Raft's half, which can dial too.
type muxLayer struct {
	*muxHalf
	m *Mux
}

// Dial opens a Raft connection to another server's port.
func (l *muxLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", string(address))
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // fails only on a closed connection, as does Write
	}
	if _, err := conn.Write([]byte{raftMarker}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if l.m.cfg.TLS == nil {
		return conn, conn.SetDeadline(time.Time{})
	}
	cfg := l.m.cfg.TLS.Clone()
	cfg.NextProtos = []string{raftALPN}
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(string(address))
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		cfg.ServerName = host
	}
	secured := tls.Client(conn, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, conn.SetDeadline(time.Time{})
}

// replayConn gives the first byte back to the reader.
type replayConn struct {
	net.Conn
	first   byte
	pending bool // only Read's caller touches it
}

// Read reads, beginning with the byte that told the kind.
func (c *replayConn) Read(b []byte) (int, error) {
	if !c.pending || len(b) == 0 {
		return c.Conn.Read(b)
	}
	c.pending = false
	b[0] = c.first
	return 1, nil
}
