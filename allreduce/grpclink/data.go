package grpclink

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/gangline/gangline/allreduce"
)

// Path says what frames travel on.
type Path string

// The paths.
const (
	// PathAuto is the fastest that works: shared memory if all ranks are on one machine, and for links a Unix socket if the next rank
	// is on this machine, else TCP, else gRPC.
	PathAuto Path = ""
	// PathShared is memory that all ranks share; they must be of one machine and one user. Links take the way that PathAuto takes.
	PathShared Path = "shm"
	// PathNodes is memory shared by the ranks of each machine, and a ring over machines between one rank of each. PathAuto is that too where
	// machines are several and some have several ranks. Links take the way that PathAuto takes.
	PathNodes Path = "nodes"
	// PathGRPC is the stream of the gRPC session itself: one port, TLS, through any proxy.
	PathGRPC Path = "grpc"
	// PathTCP is a connection of its own to the same port, agreed on over the gRPC session; inside TLS if there is any.
	PathTCP Path = "tcp"
	// PathUnix is a Unix socket, for ranks of one machine; inside TLS if there is any.
	PathUnix Path = "unix"
)

// ParsePath finds a path by its name; "auto" is PathAuto.
func ParsePath(name string) (Path, error) {
	switch p := Path(name); p {
	case PathAuto, PathShared, PathNodes, PathGRPC, PathTCP, PathUnix:
		return p, nil
	case "auto":
		return PathAuto, nil
	default:
		return "", fmt.Errorf("path %q: allowed are auto, shm, nodes, unix, tcp, grpc", name)
	}
}

// own says whether nothing but a data connection will do.
func (p Path) own() bool { return p == PathTCP || p == PathUnix }

// shares says whether nothing but shared memory will do.
func (p Path) shares() bool { return p == PathShared || p == PathNodes }

// wants says whether to try a way of its own.
func (p Path) wants(own Path) bool { return p == PathAuto || p.shares() || p == own }

// dataTimeout bounds how long the agreement on a data connection may take: on one machine or a network without obstacles it takes
// a few round trips, and behind an obstacle gRPC still works.
const dataTimeout = 2 * time.Second

// proofBytes is the length of a proof on a data connection.
const proofBytes = 2 * sha256.Size

// noData is what a server that takes no data connections says in the place of a Unix socket.
const noData = "none"

// dialData opens the data connection that the next rank offered, by the first way that the path allows and that works.
func (d *dialer) dialData(ctx context.Context, met *session) (net.Conn, Path, error) {
	ctx, cancel := context.WithTimeout(ctx, dataTimeout)
	defer cancel()
	var errs []error
	for _, way := range []struct {
		path             Path
		network, address string
	}{{PathUnix, "unix", met.server.Socket}, {PathTCP, "tcp", d.addr}} {
		if !d.cfg.Path.wants(way.path) || met.server.Socket == noData || way.address == "" {
			continue
		}
		conn, err := d.dialOne(ctx, way.network, way.address, met)
		if err == nil {
			return conn, way.path, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", way.path, err))
	}
	if d.cfg.Path.own() {
		errs = append(errs, fmt.Errorf("rank %d offers no data connection by %s: give all ranks the same path", d.rank, d.cfg.Path))
	}
	return nil, PathGRPC, errors.Join(errs...)
}

func (d *dialer) dialOne(ctx context.Context, network, address string, met *session) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	keepNear(conn)
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline) // what follows says so
	_, err = conn.Write([]byte{dataMarker})
	if err == nil && d.cfg.ClientTLS != nil {
		conn = tls.Client(conn, named(d.cfg.ClientTLS, d.addr))
	}
	if err == nil {
		_, err = conn.Write([]byte(met.prove(roleData, "")))
	}
	answer := make([]byte, proofBytes)
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err == nil && !met.proves(roleDataServer, "", string(answer)) {
		err = errors.New("who answers there does not know the group's secret")
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// named fills in whom the certificate must name, as gRPC does by itself.
func named(c *tls.Config, address string) *tls.Config {
	if c.ServerName != "" {
		return c
	}
	c = c.Clone()
	c.ServerName, _, _ = net.SplitHostPort(address)
	return c
}

// headBytes is the length of a frame's head on a data connection: five bytes, three of the formation, then numbers of 8, 4 and 4 bytes.
const headBytes = 8 + 7*8 + 3*4

// headRoom is what a reader takes at once beside payloads: a few heads.
const headRoom = 512

// dataStream carries frames on a connection: a head of fixed length, the cause if any, the payload. All numbers are little-endian.
type dataStream struct {
	conn  net.Conn
	plain bool // the kernel copies payloads, not TLS
	pool  *allreduce.Pool
	in    *bufio.Reader
	out   [headBytes]byte
	from  [headBytes]byte
	bufs  net.Buffers
	both  [2][]byte

	broken error // of the first SendMsg that did not work: what follows would be taken for the rest of its payload
}

func newDataStream(conn net.Conn, pool *allreduce.Pool) *dataStream {
	_, secure := conn.(*tls.Conn)
	return &dataStream{conn: conn, plain: !secure, pool: pool, in: bufio.NewReaderSize(conn, headRoom)}
}

// SendMsg implements stream. The kernel has the bytes when it returns. One call at a time.
func (s *dataStream) SendMsg(m any) error {
	f, ok := m.(*allreduce.Frame)
	if !ok {
		return fmt.Errorf("ring link cannot send a %T", m)
	}
	if s.broken != nil {
		f.Release()
		return s.broken
	}
	f.SwapToWire()
	putHead(&s.out, f)
	head := s.out[:]
	if f.Cause != "" {
		head = append(head[:headBytes:headBytes], cutCause(f.Cause)...)
	}
	s.both = [2][]byte{head, f.Data}
	s.bufs = s.both[:]
	if len(f.Data) == 0 {
		s.bufs = s.both[:1]
	}
	_, err := s.bufs.WriteTo(s.conn)
	f.Release()
	if errors.Is(err, syscall.EFAULT) {
		err = fmt.Errorf("%w: %w", allreduce.ErrMemory, err)
	}
	if s.broken = err; err != nil {
		s.closeSend()
	}
	return err
}

// RecvMsg implements stream. One call at a time.
func (s *dataStream) RecvMsg(m any) error {
	to, ok := m.(*slot)
	if !ok {
		return fmt.Errorf("ring link cannot receive into a %T", m)
	}
	if _, err := io.ReadFull(s.in, s.from[:]); err != nil {
		return err
	}
	header, cause, size := head(&s.from)
	if size > s.pool.Room() || cause > maxCause {
		return fmt.Errorf("a chunk of %d bytes and a cause of %d, want at most %d and %d", size, cause, s.pool.Room(), maxCause)
	}
	if cause > 0 {
		text := make([]byte, cause)
		if _, err := io.ReadFull(s.in, text); err != nil {
			return err
		}
		header.Cause = string(text)
	}
	f := to.pool.Get(size)
	f.Header = header
	if err := readPayload(s, to, f); err != nil {
		f.Release()
		return err
	}
	f.SwapToWire()
	to.frame = f
	return nil
}

// begun implements payloadSource.
func (s *dataStream) begun(n int) (ahead int, straight bool) { return min(s.in.Buffered(), n), s.plain }

// read implements payloadSource.
func (s *dataStream) read(p []byte) (int, error) { return s.in.Read(p) }

// readStraight implements payloadSource: a buffer that is empty is passed by.
func (s *dataStream) readStraight(p []byte) (int, error) { return s.in.Read(p) }

// rearm implements payloadSource.
func (s *dataStream) rearm() error { return s.conn.SetReadDeadline(time.Time{}) }

// interrupt wakes a read of a payload.
func (s *dataStream) interrupt() {
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // the read says so
}

// closeSend lets the other side see the end once it has read all that was sent.
func (s *dataStream) closeSend() {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // its error would say that the connection has ended
	}
}

func (s *dataStream) close() { _ = s.conn.Close() } // nothing is left to be told

func cutCause(cause string) string { return cause[:min(len(cause), maxCause)] }

func putHead(b *[headBytes]byte, f *allreduce.Frame) {
	b[0], b[1], b[2], b[3], b[4] = byte(f.Kind), byte(f.Call), byte(f.Type), byte(f.Op), byte(f.Wire)
	b[5], b[6], b[7] = byte(f.Formation), byte(f.Formation>>8), byte(f.Formation>>16)
	for i, v := range [...]uint64{f.Job, f.Epoch, f.Sequence, f.Index, f.Length, f.Count, f.Ack} {
		binary.LittleEndian.PutUint64(b[8+8*i:], v)
	}
	for i, v := range [...]int{f.Rank, len(cutCause(f.Cause)), len(f.Data)} {
		binary.LittleEndian.PutUint32(b[8+7*8+4*i:], uint32(v)) //nolint:gosec // all are small and not negative
	}
}

// head reads a frame's head: its numbers, and the lengths of cause and payload.
func head(b *[headBytes]byte) (h allreduce.Header, cause, size int) {
	h.Kind, h.Call, h.Type, h.Op, h.Wire = allreduce.Kind(b[0]), allreduce.Call(b[1]), allreduce.Type(b[2]), allreduce.Op(b[3]), allreduce.Wire(b[4])
	h.Formation = uint32(b[5]) | uint32(b[6])<<8 | uint32(b[7])<<16
	for i, to := range [...]*uint64{&h.Job, &h.Epoch, &h.Sequence, &h.Index, &h.Length, &h.Count, &h.Ack} {
		*to = binary.LittleEndian.Uint64(b[8+8*i:])
	}
	for i, to := range [...]*int{&h.Rank, &cause, &size} {
		*to = int(binary.LittleEndian.Uint32(b[8+7*8+4*i:]))
	}
	return h, cause, size
}
