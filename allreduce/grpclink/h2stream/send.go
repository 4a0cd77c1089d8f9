package h2stream

import (
	"encoding/binary"
	"errors"
	"io"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Prefix is the length of what stands before each message: whether it is compressed, which it never is, and its length.
const Prefix = 5

const frameHead = 9

// Send sends one message: head, whose first Prefix bytes are Send's to write, and payload. It waits while the other side takes no more. When it returns,
// with an error too, the kernel has copied what will be sent and nobody reads either any more. After an error the stream is of no use for sending, as
// a message may have been cut short.
func (s *Stream) Send(head, payload []byte) error {
	head[0] = 0
	size := len(head) - Prefix + len(payload)
	binary.BigEndian.PutUint32(head[1:], uint32(size)) //nolint:gosec // messages are far below 4 GiB
	s.message.Lock()
	defer s.message.Unlock()
	if s.said {
		return status.Error(codes.Canceled, "this side ended the stream")
	}
	for left := len(head) + len(payload); left > 0; {
		n, err := s.sendSome(&head, &payload, left)
		if err != nil {
			s.fail(lost(err)) // a part of the message may have left
			return err
		}
		left -= n
		if n == 0 {
			s.awaitRoom()
		}
	}
	return nil
}

// sendSome sends as much as the other side takes now, and cuts it off head and payload.
func (s *Stream) sendSome(head, payload *[]byte, left int) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.sayAnswersNow(); err != nil {
		return 0, err
	}
	// What the other side takes is looked at while nothing else is written, so that no answer to a change of it leaves before what was sent by the old one.
	n, longest, err := s.reserve(left)
	if n == 0 || err != nil {
		return 0, err
	}
	s.heads, s.parts = s.heads[:0], s.parts[:0]
	for rest := n; rest > 0; {
		size := min(rest, longest)
		rest -= size
		from := len(s.heads)
		s.heads = appendFrameHead(s.heads, size, http2.FrameData, 0, s.id)
		if part := cut(head, size); len(part) > 0 { // beside the frame's head: TLS makes a record of each part
			s.heads = append(s.heads, part...)
			size -= len(part)
		}
		s.parts = append(s.parts, s.heads[from:len(s.heads):len(s.heads)])
		if part := cut(payload, size); len(part) > 0 {
			s.parts = append(s.parts, part)
		}
	}
	s.vector = s.parts
	_, err = s.vector.WriteTo(s.conn)
	clear(s.parts)
	return n, err
}

// cut takes up to n bytes off the front.
func cut(from *[]byte, n int) []byte {
	n = min(n, len(*from))
	part := (*from)[:n]
	*from = (*from)[n:]
	return part
}

func appendFrameHead(b []byte, size int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	b = append(b, byte(size>>16), byte(size>>8), byte(size), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

// reserve takes what may be sent of so many bytes, and returns how long a frame may be.
func (s *Stream) reserve(want int) (n, frame int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return 0, 0, s.failure
	}
	n = int(max(0, min(int64(want), s.sendConn, s.sendStream)))
	s.sendConn -= int64(n)
	s.sendStream -= int64(n)
	if n > 0 {
		s.sent++
	}
	return n, s.frame, nil
}

// awaitRoom waits until something can be sent, or never again.
func (s *Stream) awaitRoom() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.failure == nil && min(s.sendConn, s.sendStream) <= 0 {
		s.changed.Wait()
	}
}

// CloseSend tells the other side that no message follows; of a server it is Finish(nil).
func (s *Stream) CloseSend() error {
	if s.server {
		return s.Finish(nil)
	}
	s.message.Lock()
	defer s.message.Unlock()
	if s.said {
		return nil
	}
	s.said = true
	s.mu.Lock()
	_ = s.out.WriteData(s.id, true, nil) // a buffer takes everything
	s.mu.Unlock()
	return s.sayLast()
}

// Finish tells a client how its call went, after all that was sent: nil is well. It returns once that was given to the kernel.
func (s *Stream) Finish(how error) error {
	s.message.Lock()
	defer s.message.Unlock()
	if s.said {
		return nil
	}
	s.said = true
	st := status.Convert(how)
	fields := []hpack.HeaderField{{Name: "grpc-status", Value: strconv.Itoa(int(st.Code()))}}
	if st.Message() != "" {
		fields = append(fields, hpack.HeaderField{Name: "grpc-message", Value: escape(st.Message())})
	}
	s.mu.Lock()
	s.writeHeaders(fields, true)
	_ = s.out.WriteGoAway(s.id, http2.ErrCodeNo, nil) // as above
	s.mu.Unlock()
	return s.sayLast()
}

// sayLast sends the last word of this side.
func (s *Stream) sayLast() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	err := s.failure
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.sayAnswersNow()
}

// CloseWrite lets the other side see the end of the connection after all that was sent, if the connection can.
func (s *Stream) CloseWrite() {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // its error would say that the connection has ended
	}
}

// sayAnswers sends answers whenever there are some. The receiver never writes itself: two ends that both wait to write would both not read.
func (s *Stream) sayAnswers() {
	for {
		select {
		case <-s.wake:
		case <-s.closed:
			return
		}
		s.writing.Lock()
		s.mu.Lock()
		if s.failure != nil { // a last word, of which nobody need hear
			_ = s.conn.SetWriteDeadline(time.Now().Add(wordTime)) // the write says so
		}
		s.mu.Unlock()
		err := s.sayAnswersNow()
		s.writing.Unlock()
		if err != nil {
			s.fail(lost(err))
			return
		}
	}
}

// sayAnswersNow sends what is to be answered. The caller holds writing.
func (s *Stream) sayAnswersNow() error {
	s.mu.Lock()
	if s.answers.Len() == 0 {
		s.mu.Unlock()
		return nil
	}
	s.spare.Reset()
	_, _ = s.answers.WriteTo(&s.spare) // a buffer takes everything
	s.mu.Unlock()
	_, err := s.conn.Write(s.spare.Bytes())
	return err
}

// nudge tells who sends answers that there are some.
func (s *Stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// answer adds to what will be answered, unless the other side lets too much of that lie.
func (s *Stream) answer(write func(*http2.Framer) error) error {
	s.mu.Lock()
	_ = write(s.out) // as above
	long := s.answers.Len() > maxAnswers
	s.mu.Unlock()
	s.nudge()
	if long {
		return s.violation(http2.ErrCodeEnhanceYourCalm, "it asks, and does not read more than %d bytes of answers", maxAnswers)
	}
	return nil
}

// isLost tells errors of the connection from those of the protocol.
func isLost(err error) bool {
	return !errors.As(err, new(http2.ConnectionError)) && !errors.As(err, new(http2.StreamError)) && !errors.Is(err, http2.ErrFrameTooLarge)
}

var errMidMessage = status.Error(codes.Internal, "the stream ended in the middle of a message: "+io.ErrUnexpectedEOF.Error())
