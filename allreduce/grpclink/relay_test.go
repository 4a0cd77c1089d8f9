package grpclink_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay stands between a rank and its next one, so that a test can cut the
// connection or stop to pass bytes on, as a hung process or a lost network would.
type relay struct {
	listener net.Listener
	target   string
	heard    func([]byte) // given what clients say, if there is one
	pause    atomic.Int64 // nanoseconds between two parts of what clients say; 0: none
	done     sync.WaitGroup

	hold   chan struct{} // closed by freeze
	holdIt sync.Once
	ended  chan struct{} // closed by cut

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	ls, _ := listeners(t, 1)
	r := &relay{listener: ls[0], target: target, hold: make(chan struct{}), ended: make(chan struct{})}
	r.done.Go(r.accept)
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = in.Close()
			continue
		}
		r.mu.Lock()
		r.conns = append(r.conns, in, out)
		if r.closed {
			_, _ = in.Close(), out.Close()
		}
		r.mu.Unlock()
		r.done.Go(func() { r.pump(in, out, func(b []byte) { r.say(b) }) })
		r.done.Go(func() { r.pump(out, in, nil) })
	}
}

// say hears what a client says, and slows it down.
func (r *relay) say(b []byte) {
	if r.heard != nil {
		r.heard(b)
	}
	if pause := r.pause.Load(); pause > 0 {
		select {
		case <-time.After(time.Duration(pause)):
		case <-r.ended:
		}
	}
}

func (r *relay) pump(from, to net.Conn, heard func([]byte)) {
	defer from.Close() //nolint:errcheck // a test's connection
	defer to.Close()   //nolint:errcheck // a test's connection
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-r.hold: // held: read no more and write nothing, until cut
			<-r.ended
			return
		default:
		}
		if heard != nil {
			heard(buf[:n])
		}
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// freeze passes nothing on any more while all connections stay open.
func (r *relay) freeze() { r.holdIt.Do(func() { close(r.hold) }) }

// cut closes all connections and ends the relay.
func (r *relay) cut() {
	_ = r.listener.Close()
	r.mu.Lock()
	if !r.closed {
		close(r.ended)
	}
	r.closed = true
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.done.Wait()
}
