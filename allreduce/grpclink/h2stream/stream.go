package h2stream

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Config says what an end of a stream takes. Values outside their ranges are brought into them.
type Config struct {
	// Window is how many bytes the other side may have sent that were not read: 64 KiB to 1 GiB. A smaller one than two messages makes senders wait.
	Window int
	// Frame is the longest DATA frame to ask for, 16 KiB to 16 MiB - 1. A message should fit into one.
	Frame int
	// Message is the longest message to take, in bytes.
	Message int
}

const (
	minFrame      = 16 << 10 // what all peers must take
	maxFrame      = 1<<24 - 1
	firstWindow   = 1<<16 - 1 // RFC 9113, 6.9.2
	maxWindow     = math.MaxInt32
	maxHeaderList = 16 << 10
	maxControl    = 64 << 10 // of a frame that is not DATA; larger ones have no use
	maxAnswers    = 16 << 10 // bytes of answers that the other side may leave unread
	maxIdle       = 4096     // frames in a row that move no message
	wordTime      = 100 * time.Millisecond
)

// Stream is one end of the stream. Send, CloseSend and Finish may be called at the same time as Next, Read and ReadStraight, which belong to one
// goroutine; Interrupt and Close at any time. What the other side takes is heard only by who receives, so that Send may wait for as long as nobody does. Errors are gRPC statuses: Unavailable if the connection was lost, Canceled if
// the other side gave the stream up, Internal with what was wrong if it broke the protocol; else what it said itself.
type Stream struct {
	conn   net.Conn
	cfg    Config
	server bool

	// For who receives.
	id         uint32 // of the stream; 0: not opened yet. Set before the stream is given to its user.
	highest    uint32 // of streams that the other side opened
	in         *buffer
	framer     *http2.Framer
	answered   bool  // a client has got the head of the response
	inFrame    int   // bytes of a message that the DATA frame under way has left
	padding    int   // bytes of padding after them
	inMessage  int   // bytes that the message under way has left
	whole      bool  // the message under way has begun and not ended
	ending     bool  // the frame under way is the last
	end        error // why nothing more comes
	connRoom   int   // bytes that the other side may send on the connection
	streamRoom int   // and on the stream
	read       int   // bytes taken, and not yet told to it
	idle       int   // frames since the last that moved a message
	prefix     [Prefix]byte

	message sync.Mutex // held while a message is sent, so that nothing comes between its frames
	said    bool       // the end of this side was sent; guarded by message

	writing sync.Mutex // held while the connection is written to; taken before mu
	spare   bytes.Buffer
	heads   []byte
	parts   [][]byte
	vector  net.Buffers

	mu         sync.Mutex // guards what follows
	changed    sync.Cond
	failure    error // why nothing more can be sent
	sendConn   int64 // bytes that may be sent on the connection
	sendStream int64 // and on the stream; below zero where the other side took some back
	first      int64 // what the latter began with
	frame      int   // longest frame to send
	sent       int   // writes of messages; see idled
	answers    bytes.Buffer
	out        *http2.Framer // writes to answers

	wake      chan struct{} // holds a token while there are answers
	closed    chan struct{}
	closeOnce sync.Once
	helper    sync.WaitGroup
}

func newStream(conn net.Conn, begun []byte, cfg Config, server bool) *Stream {
	cfg.Window = min(max(cfg.Window, firstWindow), 1<<30)
	cfg.Frame = min(max(cfg.Frame, minFrame), maxFrame)
	s := &Stream{
		conn: conn, cfg: cfg, server: server, in: newBuffer(conn, begun),
		connRoom: cfg.Window, streamRoom: cfg.Window,
		sendConn: firstWindow, sendStream: firstWindow, first: firstWindow, frame: minFrame,
		wake: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	s.changed.L = &s.mu
	s.framer = http2.NewFramer(nil, s.in)
	s.framer.SetMaxReadFrameSize(uint32(cfg.Frame)) //nolint:gosec // checked
	s.framer.MaxHeaderListSize = maxHeaderList
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	s.out = http2.NewFramer(&s.answers, nil)
	return s
}

// settings writes what this side takes. The window of the connection is not a setting, but told in the same breath.
func (s *Stream) settings() {
	list := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: uint32(s.cfg.Window)}, //nolint:gosec // checked
		{ID: http2.SettingMaxFrameSize, Val: uint32(s.cfg.Frame)},       //nolint:gosec // checked
		{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
	}
	if s.server {
		list = append(list, onlyOne)
	} else {
		list = append(list, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	}
	_ = s.out.WriteSettings(list...) // a buffer takes everything
	if more := s.cfg.Window - firstWindow; more > 0 {
		_ = s.out.WriteWindowUpdate(0, uint32(more)) //nolint:gosec // positive
	}
}

// onlyOne makes a proxy give each stream a connection of its own.
var onlyOne = http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1} //nolint:gochecknoglobals // a constant in all but name

// start lets answers be sent.
func (s *Stream) start() {
	s.helper.Go(s.sayAnswers)
	s.nudge()
}

// Interrupt makes a ReadStraight that waits return os.ErrDeadlineExceeded, or the next one if none does. Resume undoes it.
func (s *Stream) Interrupt() {
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // the read says so
}

// Resume undoes an Interrupt, for who receives.
func (s *Stream) Resume() error {
	err := s.conn.SetReadDeadline(time.Time{})
	s.in.poked = false
	return err
}

// Close ends the stream and its connection by force, and all calls on it.
func (s *Stream) Close() {
	s.closeOnce.Do(func() {
		s.fail(status.Error(codes.Canceled, "this side closed the stream"))
		close(s.closed)
		conn := s.conn
		if secure, ok := conn.(*tls.Conn); ok {
			conn = secure.NetConn() // else a farewell waits for a peer that may not read
		}
		_ = conn.Close() // nothing is left to be told
	})
	s.helper.Wait()
}

// Done is closed by Close.
func (s *Stream) Done() <-chan struct{} { return s.closed }

// Expire ends receiving when the limit has passed. Nobody may interrupt it any more.
func (s *Stream) Expire(limit time.Duration) {
	s.in.over.Store(true)
	_ = s.conn.SetReadDeadline(time.Now().Add(limit)) // the reads say so
}

// Drain reads over what the other side still sends, until it closes the connection or Expire's limit has passed. It is for who receives, and the last that may be received.
func (s *Stream) Drain() {
	_, _ = io.Copy(io.Discard, s.conn) // nobody wants it
}

// fail ends all sending. The first cause counts.
func (s *Stream) fail(cause error) {
	s.mu.Lock()
	if s.failure == nil {
		s.failure = cause
	}
	s.mu.Unlock()
	s.changed.Broadcast()
}

// lost says that the connection has ended.
func lost(err error) error {
	return status.Error(codes.Unavailable, "the connection was lost: "+err.Error())
}

// violation ends a stream whose other side broke the protocol, and tells that why.
func (s *Stream) violation(code http2.ErrCode, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	err := status.Error(codes.Internal, "the other side broke the HTTP/2 protocol: "+text)
	s.mu.Lock()
	if s.failure == nil {
		_ = s.out.WriteGoAway(s.highest, code, []byte(text)) // a buffer takes everything
		s.failure = err
	}
	s.mu.Unlock()
	s.changed.Broadcast()
	s.nudge()
	return err
}
