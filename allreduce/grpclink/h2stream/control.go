package h2stream

import (
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// control does what a frame asks for that is not DATA.
func (s *Stream) control(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return s.headers(f)
	case *http2.SettingsFrame:
		return s.set(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		data := f.Data
		return s.answer(func(out *http2.Framer) error { return out.WritePing(true, data) })
	case *http2.WindowUpdateFrame:
		return s.widen(f)
	case *http2.RSTStreamFrame:
		return s.reset(f)
	case *http2.GoAwayFrame:
		return s.goAway(f)
	case *http2.PriorityFrame:
		return nil
	default: // PUSH_PROMISE, which a client has forbidden and no client may send
		return s.violation(http2.ErrCodeProtocol, "an unexpected frame %v", f.Header().Type)
	}
}

// set takes over what the other side takes from now on.
func (s *Stream) set(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	wrong := f.ForeachSetting(func(v http2.Setting) error {
		if err := v.Valid(); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch v.ID { //nolint:exhaustive // others bind what this side never does
		case http2.SettingInitialWindowSize: // RFC 9113, 6.9.2: also of streams that are open
			s.sendStream += int64(v.Val) - s.first
			s.first = int64(v.Val)
			if s.sendStream > maxWindow {
				return http2.ConnectionError(http2.ErrCodeFlowControl)
			}
		case http2.SettingMaxFrameSize:
			s.frame = int(v.Val)
		}
		return nil
	})
	if wrong != nil {
		code := http2.ErrCodeProtocol
		if c := http2.ConnectionError(0); errors.As(wrong, &c) {
			code = http2.ErrCode(c)
		}
		return s.violation(code, "a setting that is not allowed: %v", wrong)
	}
	s.changed.Broadcast()
	return s.answer((*http2.Framer).WriteSettingsAck)
}

// widen lets more be sent.
func (s *Stream) widen(f *http2.WindowUpdateFrame) error {
	s.mu.Lock()
	var room int64
	switch f.StreamID {
	case 0:
		s.sendConn += int64(f.Increment)
		room = s.sendConn
	case s.id:
		s.sendStream += int64(f.Increment)
		room = s.sendStream
	}
	s.mu.Unlock()
	s.changed.Broadcast()
	switch {
	case s.strange(f.StreamID):
		return s.violation(http2.ErrCodeProtocol, "WINDOW_UPDATE for stream %d, which was never open", f.StreamID)
	case room > maxWindow:
		return s.violation(http2.ErrCodeFlowControl, "its window grew above %d bytes", maxWindow)
	}
	return nil
}

// strange says whether a stream was never open.
func (s *Stream) strange(id uint32) bool { return id != 0 && (id > s.highest || id%2 == 0) }

// reset hears that the other side gave a stream up.
func (s *Stream) reset(f *http2.RSTStreamFrame) error {
	switch {
	case s.strange(f.StreamID):
		return s.violation(http2.ErrCodeProtocol, "RST_STREAM for stream %d, which was never open", f.StreamID)
	case f.StreamID != s.id:
		return nil
	}
	code := codes.Internal
	switch f.ErrCode { //nolint:exhaustive // the others say that something is wrong
	case http2.ErrCodeCancel:
		code = codes.Canceled
	case http2.ErrCodeRefusedStream:
		code = codes.Unavailable
	}
	err := status.Errorf(code, "the other side gave the stream up: %v", f.ErrCode)
	s.fail(err)
	return err
}

// goAway hears that the other side takes no new streams. This one goes on, unless it was too late.
func (s *Stream) goAway(f *http2.GoAwayFrame) error {
	switch {
	case f.ErrCode != http2.ErrCodeNo:
		err := status.Errorf(codes.Internal, "the other side ended the connection: %v (%.200q)", f.ErrCode, f.DebugData())
		s.fail(err)
		return err
	case !s.server && f.LastStreamID < s.id:
		err := status.Error(codes.Unavailable, "the other side took no stream any more")
		s.fail(err)
		return err
	}
	return nil
}

// headers begins the stream for a server and the response for a client, or ends one of them.
func (s *Stream) headers(f *http2.MetaHeadersFrame) error {
	if f.Truncated {
		return s.violation(http2.ErrCodeEnhanceYourCalm, "a header list of more than %d bytes", maxHeaderList)
	}
	switch {
	case s.server && f.StreamID > s.highest && f.StreamID%2 == 1:
		first := s.id == 0
		s.highest = f.StreamID
		if first {
			s.id = f.StreamID
			s.ending = f.StreamEnded()
			return nil
		}
		id := f.StreamID
		return s.answer(func(out *http2.Framer) error { return out.WriteRSTStream(id, http2.ErrCodeRefusedStream) })
	case f.StreamID != s.id:
		if s.server && !s.strange(f.StreamID) {
			return nil // the end of a stream that was refused
		}
		return s.violation(http2.ErrCodeProtocol, "HEADERS on stream %d, which is not open", f.StreamID)
	case s.ending:
		return s.violation(http2.ErrCodeStreamClosed, "HEADERS after the stream's end")
	case s.server && !f.StreamEnded():
		return s.violation(http2.ErrCodeProtocol, "a second head of the request")
	case s.server:
		return io.EOF
	default:
		return s.response(f)
	}
}

// isPassing tells what ends a read from what ends the stream.
func isPassing(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.EFAULT)
}
