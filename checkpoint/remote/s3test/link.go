package s3test

import (
	"errors"
	"io"
	"net"
	"sync"
)

// errCut ends a connection.
var errCut = errors.New("the link is cut")

// Link is a way to a server that breaks when a test wants it to.
type Link struct {
	Endpoint string

	mu    sync.Mutex
	left  int64 // bytes to the server until the cut; below 0: no cut is planned
	cuts  int
	conns map[net.Conn]bool
}

// Link opens a way to the server until the test ends.
func (s *Server) Link() *Link {
	s.t.Helper()
	l := &Link{left: -1, conns: map[net.Conn]bool{}}
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	l.Endpoint = "http://" + in.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := in.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.serve(conn, s.address) })
		}
	})
	s.t.Cleanup(func() {
		_ = in.Close() // ends the loop
		l.cutAll()
		wg.Wait()
	})
	return l
}

// CutAfter has all connections break once so many more bytes have gone to the server; then it works again.
func (l *Link) CutAfter(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = bytes
}

// Cuts says how often it has broken.
func (l *Link) Cuts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts
}

func (l *Link) cutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns { // any order: all
		_ = c.Close() // it may be closed
	}
}

func (l *Link) serve(conn net.Conn, to string) {
	server, err := net.Dial("tcp", to)
	if err != nil {
		_ = conn.Close() // as a server that is down
		return
	}
	l.mu.Lock()
	l.conns[conn], l.conns[server] = true, true
	l.mu.Unlock()
	var wg sync.WaitGroup
	end := func() { _, _ = conn.Close(), server.Close() }
	wg.Go(func() {
		defer end()
		_, _ = io.Copy(server, &counted{Conn: conn, link: l})
	})
	wg.Go(func() {
		defer end()
		_, _ = io.Copy(conn, server)
	})
	wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, conn)
	delete(l.conns, server)
}

// counted is what comes from the client.
type counted struct {
	net.Conn
	link *Link
}

// Read gives what came, up to the cut.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.link.went(n) {
		c.link.cutAll()
		return 0, errCut
	}
	return n, err
}

// went counts, and says whether the cut is now.
func (l *Link) went(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left < 0 {
		return false
	}
	if l.left -= int64(n); l.left > 0 {
		return false
	}
	l.left = -1
	l.cuts++
	return true
}
