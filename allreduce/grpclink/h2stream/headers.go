package h2stream

import (
	"bytes"
	"io"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const contentType = "application/grpc"

// writeHeaders adds a header block to what will be sent. Nothing is indexed: there are two blocks in a stream's life, and so no change of the table's size
// matters. The caller holds mu.
func (s *Stream) writeHeaders(fields []hpack.HeaderField, end bool) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range fields {
		f.Sensitive = true        // which is what HPACK calls a field that must not be indexed
		_ = encoder.WriteField(f) // a buffer takes everything
	}
	_ = s.out.WriteHeaders(http2.HeadersFrameParam{ // as above
		StreamID: s.id, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: true,
	})
}

// response hears the head of a server's response, or its trailers.
func (s *Stream) response(f *http2.MetaHeadersFrame) error {
	if s.answered {
		if !f.StreamEnded() {
			return s.violation(http2.ErrCodeProtocol, "a second head of the response")
		}
		return s.trailers(f)
	}
	code := f.PseudoValue("status")
	if len(code) == 3 && code[0] == '1' && !f.StreamEnded() {
		return nil // an interim response
	}
	kind := value(f, "content-type")
	switch {
	case code != "200":
		return s.answeredBadly("HTTP status %.20q instead of 200", code)
	case !isGRPC(kind):
		return s.answeredBadly("content of type %.50q instead of %s", kind, contentType)
	case value(f, "grpc-encoding") != "" && value(f, "grpc-encoding") != "identity":
		return s.answeredBadly("messages encoded by %.50q, which nobody asked for", value(f, "grpc-encoding"))
	}
	s.answered = true
	if f.StreamEnded() {
		return s.trailers(f)
	}
	return nil
}

// answeredBadly says that who answers does not speak gRPC.
func (s *Stream) answeredBadly(format string, args ...any) error {
	err := status.Errorf(codes.Internal, "who answers speaks no gRPC: "+format, args...)
	s.fail(err)
	return err
}

// trailers hears how the call went: io.EOF is well.
func (s *Stream) trailers(f *http2.MetaHeadersFrame) error {
	said := value(f, "grpc-status")
	code, err := strconv.ParseUint(said, 10, 32)
	switch {
	case err != nil:
		err = status.Errorf(codes.Internal, "the server ended the stream with the status %.20q, want a number", said)
	case code == 0:
		err = io.EOF
	default:
		err = status.Error(codes.Code(code), unescape(value(f, "grpc-message")))
	}
	s.fail(status.Error(codes.Canceled, "the server ended the stream"))
	return err
}

// isGRPC says whether content is gRPC with protobuf.
func isGRPC(kind string) bool {
	return kind == contentType || kind == contentType+"+proto"
}

// value returns a header's value, empty where there is none.
func value(f *http2.MetaHeadersFrame, name string) string {
	for _, field := range f.RegularFields() {
		if field.Name == name {
			return field.Value
		}
	}
	return ""
}

// escape makes a text fit for a header, as gRPC does.
func escape(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' || c == '%' {
			const digits = "0123456789ABCDEF"
			b.WriteString(string([]byte{'%', digits[c>>4], digits[c&15]}))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// unescape undoes escape. What was not escaped well is taken as it is.
func unescape(text string) string {
	if plain, err := url.PathUnescape(text); err == nil {
		return strings.ToValidUTF8(plain, "\uFFFD")
	}
	return text
}
