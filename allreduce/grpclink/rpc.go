package grpclink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink/h2stream"
)

// connectTime bounds the making of a connection, with TLS.
const connectTime = 2 * time.Second

// rpc carries frames on a gRPC stream of our own make, as messages of ring.proto.
type rpc struct {
	call  *h2stream.Stream
	plain bool // the kernel copies payloads, not TLS
	link  bool // of a server: a link ends it
	head  []byte
	take  func(s *slot, f *allreduce.Frame) error

	broken error // of the first SendMsg that did not work: what follows would be taken for the rest of its payload

	receiving sync.Mutex // held during RecvMsg; it guards what follows
	unread    error      // of the first RecvMsg that did not: what follows may be the rest of a message
}

func newRPC(call *h2stream.Stream, secure bool) *rpc {
	s := &rpc{call: call, plain: !secure, head: make([]byte, 0, beforeFields+maxHeader)}
	s.take = func(to *slot, f *allreduce.Frame) error { return readPayload(s, to, f) }
	return s
}

// streamConfig is what our streams take.
func (c Config) streamConfig() h2stream.Config {
	longest := c.ChunkBytes + messageRoom
	return h2stream.Config{Window: max(int(c.flowWindow()), minStreamWindow), Frame: longest + h2stream.Prefix, Message: longest}
}

// minStreamWindow is so large that credits of the ring come before a stream's.
const minStreamWindow = 16 << 20

// dialRPC opens a stream to the next rank, which ends with ctx.
func (d *dialer) dialRPC(ctx context.Context) (stream, error) {
	within, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(within, "tcp", d.addr)
	if err != nil {
		return nil, err
	}
	keepNear(conn)
	if d.cfg.ClientTLS != nil {
		secure := tls.Client(conn, forHTTP2(named(d.cfg.ClientTLS, d.addr)))
		if err := secure.HandshakeContext(within); err != nil {
			_ = conn.Close() // it was never of use
			return nil, err
		}
		conn = secure
	}
	call, err := h2stream.Dial(conn, d.cfg.streamConfig(), linkMethod, d.addr, d.cfg.ClientTLS != nil)
	if err != nil {
		_ = conn.Close() // as above
		return nil, err
	}
	d.sessions.Add(1)
	context.AfterFunc(ctx, func() {
		defer d.sessions.Done()
		call.Close()
	})
	return newRPC(call, d.cfg.ClientTLS != nil), nil
}

// forHTTP2 says that what follows is HTTP/2, as gRPC's credentials do by themselves: a proxy may serve other things on the same port.
func forHTTP2(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{"h2"}
	return c
}

// serverCredentials are those of the link from the previous rank.
func (c Config) serverCredentials() credentials.TransportCredentials {
	if c.ServerTLS != nil {
		return credentials.NewTLS(c.ServerTLS)
	}
	return insecure.NewCredentials()
}

// SendMsg implements stream. The kernel has the bytes when it returns. One call at a time.
func (s *rpc) SendMsg(m any) error {
	f, ok := m.(*allreduce.Frame)
	if !ok {
		return fmt.Errorf("ring link cannot send a %T", m)
	}
	if s.broken != nil {
		f.Release()
		return s.broken
	}
	f.SwapToWire()
	room, message := encode(s.head, f, h2stream.Prefix)
	s.head = room
	err := s.call.Send(message, f.Data)
	f.Release()
	if errors.Is(err, syscall.EFAULT) {
		err = fmt.Errorf("%w: %w", allreduce.ErrMemory, err)
	}
	if s.broken = err; err != nil {
		s.call.CloseWrite()
	}
	return err
}

// RecvMsg implements stream. One call at a time.
func (s *rpc) RecvMsg(m any) error {
	to, ok := m.(*slot)
	if !ok {
		return fmt.Errorf("ring link cannot receive into a %T", m)
	}
	s.receiving.Lock()
	defer s.receiving.Unlock()
	if s.unread != nil {
		return s.unread
	}
	_, err := s.call.Next()
	if err == nil {
		err = to.decode(s.call, s.take)
	}
	s.unread = err
	return err
}

// begun implements payloadSource. Only what comes in one piece is read straight: what is read ahead between pieces must be copied, and would be by a process that may
// not touch that memory any more.
func (s *rpc) begun(n int) (ahead int, straight bool) {
	one, ahead := s.call.Straight()
	return ahead, s.plain && one >= n
}

// read implements payloadSource.
func (s *rpc) read(p []byte) (int, error) { return s.call.Read(p) }

// readStraight implements payloadSource.
func (s *rpc) readStraight(p []byte) (int, error) { return s.call.ReadStraight(p) }

// rearm implements payloadSource.
func (s *rpc) rearm() error { return s.call.Resume() }

// interrupt wakes a read of a payload.
func (s *rpc) interrupt() { s.call.Interrupt() }

// closeSend lets the other side see the end once it has read all that was sent.
func (s *rpc) closeSend() { _ = s.call.CloseSend() } // its error would say that the stream has ended

func (s *rpc) close() { s.call.Close() }

// rpc serves a stream on a connection of its own, of which some bytes have been read.
func (s *server) rpc(conn net.Conn, begun []byte) {
	s.serving.Go(func() { // ends when its link or its greeting does, and at the latest by cutCalls
		call, err := h2stream.Serve(conn, begun, s.cfg.streamConfig())
		if err != nil {
			_ = conn.Close() // it was never of use
			return
		}
		defer call.Close()
		if !s.addCall(call) {
			return
		}
		defer s.dropCall(call)
		r := newRPC(call, s.cfg.ServerTLS != nil)
		err = s.handle(r)
		if err == nil && r.link {
			<-call.Done()
			return
		}
		if call.Finish(err) == nil {
			r.drain()
		}
	})
}

// drain reads over what the other side still sends after this side's last word, until it closes the connection: to close before could take that word away from it.
func (s *rpc) drain() {
	s.call.CloseWrite()
	s.call.Expire(lingerTime)
	s.receiving.Lock() // whoever receives ends soon
	defer s.receiving.Unlock()
	s.call.Drain()
}

func (s *server) addCall(call *h2stream.Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut {
		s.calls[call] = struct{}{}
	}
	return !s.cut
}

func (s *server) dropCall(call *h2stream.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, call)
}

// cutCalls ends all calls by force.
func (s *server) cutCalls() {
	s.mu.Lock()
	s.cut = true
	calls := slices.Collect(maps.Keys(s.calls))
	s.mu.Unlock()
	for _, call := range calls {
		call.Close()
	}
}
