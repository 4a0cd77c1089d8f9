package h2stream

import (
	"bytes"
	"errors"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Dial opens a stream of a method, such as /package.Service/Method, on a connection that is ready for HTTP/2: it is not waited for that the server
// answers. Close closes the connection too. secure says whether there is TLS below; authority is the server's name.
func Dial(conn net.Conn, cfg Config, method, authority string, secure bool) (*Stream, error) {
	s := newStream(conn, nil, cfg, false)
	s.id, s.highest = 1, 1
	scheme := "http"
	if secure {
		scheme = "https"
	}
	s.answers.WriteString(http2.ClientPreface)
	s.settings()
	s.writeHeaders([]hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: scheme},
		{Name: ":path", Value: method},
		{Name: ":authority", Value: authority},
		{Name: "content-type", Value: contentType},
		{Name: "user-agent", Value: "gangline-ring"},
		{Name: "te", Value: "trailers"},
	}, false)
	if err := s.sayLast(); err != nil {
		return nil, lost(err)
	}
	s.start()
	return s, nil
}

// Serve opens the stream that a client asks for first on a connection; begun is what was read of that before. The caller knows that it asks for a stream that
// it shall get: see Sort. Serve reads until it has come, so the caller bounds its time. Close closes the connection too.
func Serve(conn net.Conn, begun []byte, cfg Config) (*Stream, error) {
	s := newStream(conn, begun, cfg, true)
	s.settings()
	if err := s.sayLast(); err != nil {
		return nil, lost(err)
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(s.in, preface); err != nil {
		return nil, lost(err)
	}
	if string(preface) != http2.ClientPreface {
		return nil, errNoPreface
	}
	s.start()
	for s.id == 0 {
		if err := s.next(); err != nil {
			s.Close()
			return nil, err
		}
	}
	s.mu.Lock()
	s.writeHeaders([]hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: contentType}}, false)
	s.mu.Unlock()
	s.nudge()
	return s, nil
}

var errNoPreface = errors.New("the connection does not begin as HTTP/2 does")

// maxBegun bounds what a client may say before it asks for a stream.
const maxBegun = 64 << 10

// Sort reads what a client says first on a connection of HTTP/2, of which begun was read before, until it has asked for a stream. It returns all that was read, for
// whoever serves it, and whether that can be Serve: the client asks for a plain stream of the method. It answers with settings, as clients may wait for
// such; who serves sends its own. What it does not understand, or does not come in the time that the caller has set, is another's to serve.
func Sort(conn net.Conn, begun []byte, method string) (all []byte, mine bool) {
	seen := bytes.NewBuffer(bytes.Clone(begun))
	in := io.MultiReader(bytes.NewReader(begun), io.TeeReader(conn, seen))
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(in, preface); err != nil || string(preface) != http2.ClientPreface {
		return seen.Bytes(), false
	}
	if err := http2.NewFramer(conn, nil).WriteSettings(onlyOne); err != nil {
		return seen.Bytes(), false
	}
	framer := http2.NewFramer(nil, in)
	framer.SetMaxReadFrameSize(minFrame)
	framer.MaxHeaderListSize = maxHeaderList
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for seen.Len() < maxBegun {
		f, err := framer.ReadFrame()
		if err != nil {
			return seen.Bytes(), false
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			return seen.Bytes(), asksFor(h, method)
		}
	}
	return seen.Bytes(), false
}

// asksFor says whether a request is one that a Stream can serve.
func asksFor(h *http2.MetaHeadersFrame, method string) bool {
	encoding := value(h, "grpc-encoding")
	return !h.Truncated && !h.StreamEnded() && h.PseudoValue("method") == "POST" && h.PseudoValue("path") == method &&
		isGRPC(value(h, "content-type")) && (encoding == "" || encoding == "identity") && value(h, "grpc-timeout") == ""
}
