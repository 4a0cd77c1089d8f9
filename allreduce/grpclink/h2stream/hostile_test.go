package h2stream

import (
	"bytes"
	"io"
	"math"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// hostile is what a client may do that it must not, and what it is told.
var hostile = map[string]struct {
	does  func(p *stranger)
	words string
}{
	"a frame longer than was allowed": {func(p *stranger) {
		p.must(p.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, small.Frame+1)))
	}, "a frame DATA"},
	"a length that never comes": {func(p *stranger) {
		_, err := p.conn.Write(appendFrameHead(nil, 1<<24-1, http2.FrameHeaders, 0, 1))
		p.must(err)
	}, "bytes, want at most"},
	"more than the window": {func(p *stranger) {
		p.must(p.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 70_000)))
	}, "window"},
	"padding longer than its frame": {func(p *stranger) {
		p.must(p.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, []byte{9, 'x'}))
	}, "padding"},
	"padding without room": {func(p *stranger) {
		p.must(p.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, 1, nil))
	}, "padded"},
	"DATA on a stream that is not open": {func(p *stranger) { p.must(p.WriteData(3, false, []byte("x"))) }, "not open"},
	"DATA on no stream":                 {func(p *stranger) { p.must(p.WriteRawFrame(http2.FrameData, 0, 0, []byte("x"))) }, "not open"},
	"CONTINUATION of nothing":           {func(p *stranger) { p.must(p.WriteContinuation(1, true, nil)) }, "CONTINUATION"},
	"HEADERS that another frame breaks": {func(p *stranger) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.request()}))
		p.must(p.WriteSettings())
	}, "CONTINUATION"},
	"a second head": {func(p *stranger) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.request(), EndHeaders: true}))
	}, "second head"},
	"a stream of even number": {func(p *stranger) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 2, BlockFragment: p.request(), EndHeaders: true}))
	}, "not open"},
	"fields that cannot be decoded": {func(p *stranger) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
	}, "HEADERS"},
	"a push": {func(p *stranger) {
		p.must(p.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, BlockFragment: p.request(), EndHeaders: true}))
	}, "PUSH_PROMISE"},
	"a window that grows by nothing":      {func(p *stranger) { p.must(p.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 4))) }, "WINDOW_UPDATE"},
	"a window that grows above its bound": {func(p *stranger) { p.must(p.WriteWindowUpdate(0, math.MaxInt32)) }, "grew"},
	"a window that a setting makes grow above it": {func(p *stranger) {
		p.must(p.WriteWindowUpdate(1, math.MaxInt32-firstWindow))
		p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32}))
	}, "setting"},
	"a window of no stream":               {func(p *stranger) { p.must(p.WriteWindowUpdate(7, 1)) }, "never open"},
	"the end of no stream":                {func(p *stranger) { p.must(p.WriteRSTStream(7, http2.ErrCodeCancel)) }, "never open"},
	"frames that are too short a setting": {func(p *stranger) { p.must(p.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 100})) }, "setting"},
	"a PING of odd length":                {func(p *stranger) { p.must(p.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7))) }, "PING"},
	"the end in a message": {func(p *stranger) {
		p.must(p.WriteData(1, true, data("hello")[:7]))
	}, "middle of a message"},
	"the end in a prefix":  {func(p *stranger) { p.must(p.WriteData(1, true, []byte{0, 0})) }, "middle of a message"},
	"a compressed message": {func(p *stranger) { p.must(p.WriteData(1, false, []byte{1, 0, 0, 0, 1, 'x'})) }, "compressed"},
	"a message of 4 GiB":   {func(p *stranger) { p.must(p.WriteData(1, false, []byte{0, 255, 255, 255, 255})) }, "at most"},
	"a message given up":   {func(p *stranger) { p.must(p.WriteRSTStream(1, http2.ErrCodeCancel)) }, "gave the stream up"},
	"GOAWAY with a reason": {func(p *stranger) { p.must(p.WriteGoAway(0, http2.ErrCodeInternal, []byte("out of luck"))) }, "out of luck"},
	"the connection's end": {func(p *stranger) { _ = p.conn.Close() }, "lost"},
	"headers without bound": {func(p *stranger) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.request("x", strings.Repeat("y", 20_000)), EndHeaders: true}))
	}, "HEADERS"},
	"a header list that is long when decoded": {func(p *stranger) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{
			// The field is put into the table, and each further byte repeats it.
			StreamID: 3, BlockFragment: append(p.fields("x", strings.Repeat("y", 1000)), bytes.Repeat([]byte{0x80 | 62}, 100)...), EndHeaders: true,
		}))
	}, "header list"},
	"CONTINUATION without end": {func(p *stranger) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.request()}))
		for range 100 {
			if p.WriteContinuation(3, false, p.fields("x", strings.Repeat("y", 1000))) != nil {
				return // it was told
			}
		}
	}, "HEADERS"},
	"empty DATA without end": {func(p *stranger) { p.flood(func() error { return p.WriteData(1, false, nil) }) }, "move no message"},
	"PINGs without end":      {func(p *stranger) { p.flood(func() error { return p.WritePing(false, [8]byte{}) }) }, ""},
	"SETTINGS without end":   {func(p *stranger) { p.flood(func() error { return p.WriteSettings() }) }, ""},
	"frames of no known type without end": {func(p *stranger) {
		p.flood(func() error { return p.WriteRawFrame(0xee, 0, 0, []byte("x")) })
	}, "move no message"},
	"streams without end": {func(p *stranger) {
		id := uint32(1)
		p.flood(func() error {
			id += 2
			return p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.request(), EndHeaders: true, EndStream: true})
		})
	}, ""},
}

// flood writes until the other side has had enough, and reads nothing.
func (p *stranger) flood(write func() error) {
	for range 3 * maxIdle {
		if write() != nil {
			return
		}
	}
}

func TestHostileClient(t *testing.T) {
	t.Parallel()
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, s := served(t)
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.does(p)
			}()
			var err error
			for err == nil {
				if _, err = s.Next(); err == nil {
					_, err = io.Copy(io.Discard, s)
				}
			}
			wantError(t, err, c.words)
			if _, again := s.Next(); again == nil {
				t.Error("the stream goes on after an error")
			}
			s.Close()
			<-done
		})
	}
}

// What a server may do that it must not.
func TestHostileServer(t *testing.T) {
	t.Parallel()
	head := func(p *stranger, end bool, pairs ...string) {
		p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields(pairs...), EndHeaders: true, EndStream: end}))
	}
	for name, c := range map[string]struct {
		answers bool
		does    func(p *stranger)
		words   string
	}{
		"DATA before a head":   {false, func(p *stranger) { p.must(p.WriteData(1, false, []byte("x"))) }, "before the response's head"},
		"a proxy that says no": {false, func(p *stranger) { head(p, true, ":status", "502", "content-type", "text/html") }, "502"},
		"a web page":           {false, func(p *stranger) { head(p, false, ":status", "200", "content-type", "text/html") }, "text/html"},
		"an encoding": {false, func(p *stranger) {
			head(p, false, ":status", "200", "content-type", "application/grpc", "grpc-encoding", "gzip")
		}, "gzip"},
		"an end at once": {false, func(p *stranger) {
			head(p, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "9", "grpc-message", "no%20room")
		}, "no room"},
		"interim heads": {false, func(p *stranger) {
			head(p, false, ":status", "103")
			head(p, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "5")
		}, "NotFound"},
		"no status":             {true, func(p *stranger) { head(p, true, "x", "y") }, "want a number"},
		"an end without status": {true, func(p *stranger) { p.must(p.WriteData(1, true, nil)) }, "without a status"},
		"a stream of its own": {true, func(p *stranger) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 2, BlockFragment: p.fields(":status", "200"), EndHeaders: true}))
		}, "not open"},
		"GOAWAY before us": {true, func(p *stranger) { p.must(p.WriteGoAway(0, http2.ErrCodeNo, nil)) }, "no stream any more"},
		"a refusal":        {true, func(p *stranger) { p.must(p.WriteRSTStream(1, http2.ErrCodeRefusedStream)) }, "gave the stream up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			s, err := Dial(a, small, method, "here", false)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.Close)
			p := newStranger(t, b)
			if c.answers {
				p.answers()
			} else {
				_, err := io.ReadFull(b, make([]byte, len(http2.ClientPreface)))
				p.must(err)
				p.must(p.WriteSettings())
			}
			c.does(p)
			_, err = s.Next()
			wantError(t, err, c.words)
		})
	}
}

// A second stream on a connection is refused, and the first goes on, whatever was sent on the second.
func TestSecondStreamIsRefused(t *testing.T) {
	t.Parallel()
	p, s := served(t)
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.request(), EndHeaders: true}))
	p.must(p.WriteData(3, false, data("hlost")))
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.fields("x", "y"), EndHeaders: true, EndStream: true}))
	p.must(p.WriteData(1, false, data("hfirst")))
	if got, err := receive(t, s); string(got) != "first" {
		t.Errorf("the first stream got %q, %v", got, err)
	}
	p.until(func(f http2.Frame) bool {
		r, ok := f.(*http2.RSTStreamFrame)
		return ok && r.StreamID == 3 && r.ErrCode == http2.ErrCodeRefusedStream
	})
}

// What is allowed, however odd: padding, a message in pieces of one byte, frames of no known type, head lists in pieces, an old GOAWAY.
func TestOddButAllowed(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	p := newStranger(t, a)
	_, err := io.WriteString(a, http2.ClientPreface)
	p.must(err)
	p.must(p.WriteSettings(http2.Setting{ID: 0x99, Val: 1}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}))
	block := p.request()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:3]}))
	p.must(p.WriteContinuation(1, false, block[3:5]))
	p.must(p.WriteContinuation(1, true, block[5:]))
	s, err := Serve(b, nil, small)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p.must(p.WritePriority(1, http2.PriorityParam{Weight: 3}))
	p.must(p.WriteRawFrame(0x77, 0xff, 0, make([]byte, 60_000)))
	p.must(p.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 6*500))) // of a kind that nobody knows
	p.must(p.WriteGoAway(0, http2.ErrCodeNo, nil))
	for _, c := range data("hello") {
		p.must(p.WriteDataPadded(1, false, []byte{c}, make([]byte, 200)))
		p.must(p.WriteDataPadded(1, false, nil, make([]byte, 3)))
		p.must(p.WritePing(false, [8]byte{c}))
	}
	if got, err := receive(t, s); string(got) != "ello" {
		t.Errorf("got %q, %v", got, err)
	}
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.fields("x", "y"), EndHeaders: true, EndStream: true}))
	if _, err := s.Next(); err != io.EOF { //nolint:errorlint // it must be that itself
		t.Errorf("after trailers of a client: %v, want io.EOF", err)
	}
}

// Windows are respected: a side that takes nothing gets nothing, and settings bind streams that are open.
func TestWindowsOfTheOtherSide(t *testing.T) {
	t.Parallel()
	p, s := served(t)
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20_000}))
	p.must(p.WriteData(1, false, data("h")))
	if _, err := receive(t, s); err != nil { // and has heard the settings
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- send(s, make([]byte, 50_000)) }()
	go func() { _, _ = s.Next() }() // hears what follows, until Close
	got := 0
	take := func(want int) {
		t.Helper()
		for got < want {
			p.until(func(f http2.Frame) bool {
				if f.Header().Type == http2.FrameData {
					got += int(f.Header().Length)
				}
				return f.Header().Type == http2.FrameData
			})
		}
		if got != want {
			t.Fatalf("%d bytes came, want %d, as the window is", got, want)
		}
	}
	take(10)
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})) // takes back what was given
	p.must(p.WriteWindowUpdate(1, 30))
	take(30)
	p.must(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100_000}))
	take(50_000 + Prefix + 1)
	if err := <-ended; err != nil {
		t.Errorf("Send: %v", err)
	}
}

// Sort takes for a stream's what is, and leaves all else to grpc-go, with all that was read.
func TestSort(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		mine bool
		says func(p *stranger)
	}{
		"a stream": {true, func(p *stranger) { p.asks() }},
		"another method": {false, func(p *stranger) {
			p.opens(p.fields(":method", "POST", ":scheme", "http", ":path", "/other", "content-type", "application/grpc"))
		}},
		"a deadline":  {false, func(p *stranger) { p.opens(p.request("grpc-timeout", "1S")) }},
		"an encoding": {false, func(p *stranger) { p.opens(p.request("grpc-encoding", "gzip")) }},
		"nonsense":    {false, func(p *stranger) { _, _ = io.WriteString(p.conn, "GET / HTTP/1.1\r\n\r\nand something more") }},
		"silence after settings": {false, func(p *stranger) {
			_, _ = io.WriteString(p.conn, http2.ClientPreface)
			p.must(p.WriteSettings())
		}},
		"no end of settings": {false, func(p *stranger) {
			_, _ = io.WriteString(p.conn, http2.ClientPreface)
			for range 20_000 {
				if p.WriteSettings() != nil {
					return
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			said := make(chan struct{})
			go func() {
				defer close(said)
				c.says(newStranger(t, a))
				_ = a.(interface{ CloseWrite() error }).CloseWrite() // ends the silence
			}()
			all, mine := Sort(b, nil, method)
			if mine != c.mine || len(all) == 0 || len(all) > maxBegun+minFrame+frameHead {
				t.Errorf("Sort says %v after %d bytes, want %v", mine, len(all), c.mine)
			}
			if mine {
				s, err := Serve(b, all, small)
				if err != nil {
					t.Fatalf("Serve after Sort: %v", err)
				}
				s.Close()
			}
			_ = b.Close() // ends who writes on
			<-said
		})
	}
}

// opens asks for a stream by some header list.
func (p *stranger) opens(block []byte) {
	_, err := io.WriteString(p.conn, http2.ClientPreface)
	p.must(err)
	p.must(p.WriteSettings())
	p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true}))
}
