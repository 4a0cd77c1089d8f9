package h2stream

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const method = "/test.Service/Link"

var small = Config{Window: 64 << 10, Frame: 128 << 10, Message: 128 << 10}

// pair returns two ends of a TCP connection.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.Close() // perhaps closed before
		_ = b.Close() // as above
	})
	return a, b
}

// ends returns a client and a server that talk to each other.
func ends(t testing.TB, client, server Config) (c, s *Stream) {
	t.Helper()
	a, b := pair(t)
	c, err := Dial(a, client, method, "here", false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if s, err = Serve(b, nil, server); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return c, s
}

// send sends a message of a head of one byte and a payload.
func send(s *Stream, payload []byte) error {
	return s.Send(append(make([]byte, Prefix), 'h'), payload)
}

// receive returns a message's payload.
func receive(t testing.TB, s *Stream) ([]byte, error) {
	t.Helper()
	n, err := s.Next()
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s, b); err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] != 'h' {
		t.Fatalf("a message of %d bytes that begins with %.1q", n, b)
	}
	return b[1:], nil
}

// stranger is a peer that says whatever a test wants.
type stranger struct {
	*http2.Framer
	t     testing.TB
	conn  net.Conn
	block bytes.Buffer
	coder *hpack.Encoder
}

// newStranger makes a stranger at one end of a connection.
func newStranger(t testing.TB, conn net.Conn) *stranger {
	p := &stranger{Framer: http2.NewFramer(conn, conn), t: t, conn: conn}
	p.coder = hpack.NewEncoder(&p.block)
	p.AllowIllegalWrites = true
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.SetMaxReadFrameSize(1 << 20)
	return p
}

// must fails the test, as what a stranger writes is taken.
func (p *stranger) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// fields encodes a header list of names and values.
func (p *stranger) fields(pairs ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		p.must(p.coder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}))
	}
	return bytes.Clone(p.block.Bytes())
}

// request encodes what a client asks for.
func (p *stranger) request(more ...string) []byte {
	return p.fields(append([]string{
		":method", "POST", ":scheme", "http", ":path", method, ":authority", "here", "content-type", "application/grpc", "te", "trailers",
	}, more...)...)
}

// asks opens a stream as a client does.
func (p *stranger) asks() {
	_, err := io.WriteString(p.conn, http2.ClientPreface)
	p.must(err)
	p.must(p.WriteSettings())
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.request(), EndHeaders: true}))
}

// answers begins a response as a server does.
func (p *stranger) answers() {
	_, err := io.ReadFull(p.conn, make([]byte, len(http2.ClientPreface)))
	p.must(err)
	p.must(p.WriteSettings())
	p.must(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 1, BlockFragment: p.fields(":status", "200", "content-type", "application/grpc"), EndHeaders: true,
	}))
}

// until reads frames until one is wanted.
func (p *stranger) until(wanted func(http2.Frame) bool) {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("the connection ended before the frame came: %v", err)
		}
		if wanted(f) {
			return
		}
	}
}

// served returns a server's stream that a stranger has asked for.
func served(t testing.TB) (*stranger, *Stream) {
	t.Helper()
	a, b := pair(t)
	p := newStranger(t, a)
	p.asks()
	s, err := Serve(b, nil, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return p, s
}

// data is a message's prefix and bytes.
func data(payload string) []byte {
	n := len(payload)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, payload...)
}

func wantError(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("error %v, want one that holds %q", err, words)
	}
}
