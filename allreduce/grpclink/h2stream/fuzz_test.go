package h2stream

import (
	"bytes"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// tape is a connection of which all that the other side says is known, and which takes everything.
type tape struct {
	net.Conn // nil: what is not below is not called
	says     *bytes.Reader
	cut      int
}

func (c *tape) Read(p []byte) (int, error) {
	if c.says.Len() > 0 && len(p) > c.cut {
		p = p[:c.cut]
	}
	return c.says.Read(p)
}
func (*tape) Write(p []byte) (int, error)      { return len(p), nil }
func (*tape) Close() error                     { return nil }
func (*tape) SetReadDeadline(time.Time) error  { return nil }
func (*tape) SetWriteDeadline(time.Time) error { return nil }

// FuzzServe feeds a server what a stranger may send after the preface: it must end with an error, and hold no more memory than its bounds.
func FuzzServe(f *testing.F) {
	f.Add(talk(func(w *http2.Framer, head []byte) {
		_ = w.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 9})
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head, EndHeaders: true})
		_ = w.WriteDataPadded(1, false, data("hello"), make([]byte, 3))
		_ = w.WritePing(false, [8]byte{})
		_ = w.WriteWindowUpdate(1, 10)
		_ = w.WriteData(1, true, data("h"))
	}), uint8(3))
	f.Add(talk(func(w *http2.Framer, head []byte) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head[:4]})
		_ = w.WriteContinuation(1, true, head[4:])
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: head, EndHeaders: true})
		_ = w.WriteRSTStream(1, http2.ErrCodeCancel)
		_ = w.WriteGoAway(1, http2.ErrCodeNo, []byte("bye"))
	}), uint8(200))
	f.Fuzz(func(t *testing.T, says []byte, cut uint8) {
		begun := []byte(http2.ClientPreface)
		play(t, says, func() (*Stream, error) {
			return Serve(&tape{says: bytes.NewReader(says), cut: 1 + int(cut)}, begun, small)
		})
		all, _ := Sort(&tape{says: bytes.NewReader(says), cut: 1 + int(cut)}, begun, method)
		if len(all) > len(begun)+len(says) {
			t.Errorf("Sort made %d bytes of %d", len(all), len(begun)+len(says))
		}
	})
}

// FuzzDial feeds a client what a server may answer.
func FuzzDial(f *testing.F) {
	f.Add(talk(func(w *http2.Framer, _ []byte) {
		_ = w.WriteSettings()
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields(":status", "200", "content-type", "application/grpc"), EndHeaders: true})
		_ = w.WriteData(1, false, data("hello"))
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields("grpc-status", "3", "grpc-message", "a%20b"), EndHeaders: true, EndStream: true})
	}), uint8(5))
	f.Fuzz(func(t *testing.T, says []byte, cut uint8) {
		play(t, says, func() (*Stream, error) {
			return Dial(&tape{says: bytes.NewReader(says), cut: 1 + int(cut)}, small, method, "here", false)
		})
	})
}

// play reads messages until the stream ends, which it does at the latest with the tape.
func play(t *testing.T, says []byte, open func() (*Stream, error)) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := open()
	if err != nil {
		return
	}
	for range len(says) + 1 {
		if _, err = s.Next(); err != nil {
			break
		}
		if n, _ := io.Copy(io.Discard, s); n > int64(small.Message) {
			t.Fatalf("a message of %d bytes, want at most %d", n, small.Message)
		}
	}
	s.Close()
	if err == nil {
		t.Fatalf("more messages than bytes: %d", len(says))
	}
	runtime.ReadMemStats(&after)
	// Frames of up to maxControl are held whole, and many small objects made of a long tape.
	if got, bound := after.TotalAlloc-before.TotalAlloc, uint64(4<<20+200*len(says)); got > bound { //nolint:gosec // not negative
		t.Errorf("%d bytes were allocated for %d that came, want at most %d", got, len(says), bound)
	}
}

// talk returns the bytes of frames. head is a request's.
func talk(say func(w *http2.Framer, head []byte)) []byte {
	var b bytes.Buffer
	say(http2.NewFramer(&b, nil), fields(":method", "POST", ":scheme", "http", ":path", method, "content-type", "application/grpc"))
	return b.Bytes()
}

func fields(pairs ...string) []byte {
	var b bytes.Buffer
	coder := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = coder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // a buffer takes everything
	}
	return b.Bytes()
}
