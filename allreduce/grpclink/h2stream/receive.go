package h2stream

import (
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Next waits for a message and returns its length; Read and ReadStraight give its bytes, all of which must have been read before the next Next. The error is
// io.EOF if the other side ended the stream in good order after the message before.
func (s *Stream) Next() (int, error) {
	for i := range s.prefix {
		if err := s.await(); err != nil {
			if i > 0 && errors.Is(err, io.EOF) {
				err = errMidMessage
			}
			return 0, err
		}
		b, err := s.in.ReadByte()
		if err != nil {
			return 0, s.stop(lost(err))
		}
		s.prefix[i] = b
		s.took(1)
	}
	size := int64(binary.BigEndian.Uint32(s.prefix[1:]))
	switch {
	case s.prefix[0] != 0:
		return 0, s.stop(status.Errorf(codes.Unimplemented, "a message is compressed (flag %d), which nobody asked for", s.prefix[0]))
	case size > int64(s.cfg.Message):
		return 0, s.stop(status.Errorf(codes.ResourceExhausted, "a message of %d bytes, want at most %d", size, s.cfg.Message))
	}
	s.inMessage, s.whole = int(size), false
	if s.inFrame < s.inMessage && s.inFrame < smallRoom {
		s.in.widen()
	}
	return s.inMessage, nil
}

// Remaining returns how many bytes of the message have not been read.
func (s *Stream) Remaining() int { return s.inMessage }

// Straight returns how many bytes at most ReadStraight can bring to one place in a message's payload, one after the other without a frame's head between them;
// the first Ahead of them have been read already, and are copied by it.
func (s *Stream) Straight() (n, ahead int) {
	n = min(s.inFrame, s.inMessage)
	return n, min(n, len(s.in.ahead))
}

// Read implements io.Reader for a message's bytes. It returns io.EOF at the message's end.
func (s *Stream) Read(p []byte) (int, error) { return s.take(p, (*buffer).Read) }

// ReadStraight is Read with no copy made by this process but of what Straight says. It can be interrupted, and nothing is lost then, nor where p cannot be written
// (syscall.EFAULT).
func (s *Stream) ReadStraight(p []byte) (int, error) { return s.take(p, (*buffer).straight) }

func (s *Stream) take(p []byte, read func(*buffer, []byte) (int, error)) (int, error) {
	if s.inMessage == 0 {
		return 0, io.EOF
	}
	if err := s.await(); err != nil {
		if errors.Is(err, io.EOF) {
			err = errMidMessage
		}
		return 0, err
	}
	n, err := read(s.in, p[:min(len(p), s.inFrame, s.inMessage)])
	s.inMessage -= n
	s.took(n)
	if err != nil && !isPassing(err) {
		err = s.stop(lost(err))
	}
	return n, err
}

// ReadByte implements io.ByteReader for a message's bytes.
func (s *Stream) ReadByte() (byte, error) {
	n, err := s.Read(s.prefix[:1])
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}
	if n > 0 {
		return s.prefix[0], nil
	}
	return 0, err
}

// Discard reads over n bytes of a message.
func (s *Stream) Discard(n int) (int, error) {
	done, err := io.CopyN(io.Discard, s, int64(n))
	return int(done), err
}

// took counts bytes of the DATA frame under way that have been read.
func (s *Stream) took(n int) {
	s.inFrame -= n
	s.credit(n)
}

// credit lets the other side send as many bytes more before it must wait, when that is worth a frame.
func (s *Stream) credit(n int) {
	s.read += n
	if s.read < s.cfg.Window/2 {
		return
	}
	more := s.read
	s.read = 0
	s.connRoom += more
	s.streamRoom += more
	_ = s.answer(func(out *http2.Framer) error { // too many answers are noticed when the next frame comes
		_ = out.WriteWindowUpdate(0, uint32(more))       //nolint:gosec // at most the window
		return out.WriteWindowUpdate(s.id, uint32(more)) //nolint:gosec // as above
	})
}

// stop ends receiving.
func (s *Stream) stop(err error) error {
	if s.end == nil {
		s.end = err
	}
	return s.end
}

// await waits until a DATA frame has bytes of the stream that were not read.
func (s *Stream) await() error {
	for s.inFrame == 0 {
		if s.end != nil {
			return s.end
		}
		if s.padding > 0 {
			if err := s.in.skip(s.padding); err != nil {
				return s.stop(lost(err))
			}
			s.credit(s.padding)
			s.padding = 0
		}
		if s.ending {
			return s.stop(s.endOfData())
		}
		if err := s.next(); err != nil {
			return s.stop(err)
		}
	}
	return nil
}

// endOfData says how a stream ends with a DATA frame.
func (s *Stream) endOfData() error {
	if s.server {
		return io.EOF
	}
	return status.Error(codes.Internal, "the server ended the stream without a status")
}

// next reads one frame. It returns an error when no further one is of use.
func (s *Stream) next() error {
	h, err := s.framer.ReadFrameHeader()
	if err != nil {
		return s.unread(h, err)
	}
	if h.Type == http2.FrameData {
		return s.data(h)
	}
	if err := s.idled(); err != nil {
		return err
	}
	if h.Type > http2.FrameContinuation {
		if err := s.in.skip(int(h.Length)); err != nil { // RFC 9113, 4.1: of a type that this side does not know
			return lost(err)
		}
		return nil
	}
	if h.Length > maxControl {
		return s.violation(http2.ErrCodeFrameSize, "a frame %v of %d bytes, want at most %d", h.Type, h.Length, maxControl)
	}
	f, err := s.framer.ReadFrameForHeader(h)
	if err != nil {
		return s.unread(h, err)
	}
	return s.control(f)
}

// idled counts a frame that moves no message, and ends a stream that seems to exist for such frames.
func (s *Stream) idled() error {
	s.mu.Lock()
	if s.sent > 0 { // each message that leaves may be answered by some
		s.sent, s.idle = 0, 0
	}
	s.mu.Unlock()
	if s.idle++; s.idle > maxIdle {
		return s.violation(http2.ErrCodeEnhanceYourCalm, "%d frames in a row that move no message", s.idle)
	}
	return nil
}

// unread says why a frame could not be read.
func (s *Stream) unread(h http2.FrameHeader, err error) error {
	if isLost(err) {
		return lost(err)
	}
	code := http2.ErrCodeProtocol
	if errors.Is(err, http2.ErrFrameTooLarge) {
		return s.violation(http2.ErrCodeFrameSize, "a frame %v of %d bytes, want at most %d", h.Type, h.Length, s.cfg.Frame)
	}
	if c := http2.ConnectionError(0); errors.As(err, &c) {
		code = http2.ErrCode(c)
	}
	if detail := s.framer.ErrorDetail(); detail != nil {
		err = detail
	}
	return s.violation(code, "a frame %v: %v", h.Type, err)
}

// data begins a DATA frame.
func (s *Stream) data(h http2.FrameHeader) error {
	size := int(h.Length)
	if s.connRoom -= size; s.connRoom < 0 {
		return s.violation(http2.ErrCodeFlowControl, "it sent %d bytes more than the connection's window", -s.connRoom)
	}
	switch {
	case h.StreamID == 0 || h.StreamID > s.highest || h.StreamID%2 == 0:
		return s.violation(http2.ErrCodeProtocol, "DATA on stream %d, which is not open", h.StreamID)
	case h.StreamID != s.id: // it had not heard yet that the stream was refused
		return s.dropData(size)
	case s.ending:
		return s.violation(http2.ErrCodeStreamClosed, "DATA after the stream's end")
	case !s.server && !s.answered:
		return s.violation(http2.ErrCodeProtocol, "DATA before the response's head")
	}
	if s.streamRoom -= size; s.streamRoom < 0 {
		return s.violation(http2.ErrCodeFlowControl, "it sent %d bytes more than the stream's window", -s.streamRoom)
	}
	s.ending = h.Flags.Has(http2.FlagDataEndStream)
	if h.Flags.Has(http2.FlagDataPadded) {
		if size == 0 {
			return s.violation(http2.ErrCodeFrameSize, "a padded DATA frame of no bytes")
		}
		pad, err := s.in.ReadByte()
		if err != nil {
			return lost(err)
		}
		if size--; int(pad) > size {
			return s.violation(http2.ErrCodeProtocol, "padding of %d bytes in a DATA frame of %d", pad, size)
		}
		s.padding = int(pad)
		s.credit(1)
	}
	s.inFrame = size - s.padding
	if s.inFrame == 0 {
		return s.idled()
	}
	s.idle = 0
	return nil
}

// dropData reads over a DATA frame of a stream that was refused.
func (s *Stream) dropData(size int) error {
	if err := s.in.skip(size); err != nil {
		return lost(err)
	}
	s.connRoom += size
	if size > 0 {
		_ = s.answer(func(out *http2.Framer) error { return out.WriteWindowUpdate(0, uint32(size)) }) //nolint:gosec // the length of a frame
	}
	return s.idled()
}
