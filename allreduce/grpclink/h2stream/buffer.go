package h2stream

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// headRoom is what is read at once beside payloads in large frames: a few heads.
	headRoom = 512
	// smallRoom is what is read at once where messages come in small frames. Then a copy costs less than a read for each of them.
	smallRoom = 64 << 10
)

// buffer reads ahead on a connection, not far: what is read ahead must be copied.
type buffer struct {
	conn  net.Conn
	ahead []byte      // what was read ahead
	room  []byte      // where that lies
	poked bool        // an interrupt came while nothing could be interrupted
	over  atomic.Bool // deadlines are no interrupts any more
}

// newBuffer makes a buffer of a connection of which some bytes have been read already.
func newBuffer(conn net.Conn, begun []byte) *buffer {
	return &buffer{conn: conn, ahead: begun, room: make([]byte, headRoom)}
}

// widen lets more be read at once.
func (b *buffer) widen() {
	if len(b.room) < smallRoom {
		b.room = make([]byte, smallRoom) // what is ahead stays where it is
	}
}

// Read implements io.Reader. An interrupt does not end it.
func (b *buffer) Read(p []byte) (int, error) {
	if len(b.ahead) == 0 && len(p) >= len(b.room) {
		return b.quietly(p)
	}
	if err := b.fill(); err != nil {
		return 0, err
	}
	n := copy(p, b.ahead)
	b.ahead = b.ahead[n:]
	return n, nil
}

// quietly reads, and keeps an interrupt for later.
func (b *buffer) quietly(p []byte) (int, error) {
	for {
		n, err := b.conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || b.over.Load() {
			return n, err
		}
		b.poked = true
		if err := b.conn.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
	}
}

// straight reads to p with no copy made by this process, if nothing is ahead. An interrupt ends it with os.ErrDeadlineExceeded.
func (b *buffer) straight(p []byte) (int, error) {
	switch {
	case b.poked:
		b.poked = false
		return 0, os.ErrDeadlineExceeded
	case len(b.ahead) > 0:
		return b.Read(p)
	default:
		return b.conn.Read(p)
	}
}

// skip reads n bytes of no use.
func (b *buffer) skip(n int) error {
	_, err := io.CopyN(io.Discard, b, int64(n))
	return err
}

// ReadByte implements io.ByteReader.
func (b *buffer) ReadByte() (byte, error) {
	if err := b.fill(); err != nil {
		return 0, err
	}
	c := b.ahead[0]
	b.ahead = b.ahead[1:]
	return c, nil
}

// fill reads ahead if nothing is.
func (b *buffer) fill() error {
	if len(b.ahead) > 0 {
		return nil
	}
	n, err := b.quietly(b.room)
	b.ahead = b.room[:n]
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
