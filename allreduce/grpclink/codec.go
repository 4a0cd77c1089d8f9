package grpclink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gangline/gangline/allreduce"
)

// Field numbers of message Frame in ring.proto.
const (
	fieldKind       = 1
	fieldJob        = 2
	fieldEpoch      = 3
	fieldSequence   = 4
	fieldIndex      = 5
	fieldLength     = 6
	fieldRank       = 7
	fieldCount      = 8
	fieldAck        = 9
	fieldCause      = 10
	fieldWorldSize  = 11
	fieldWindow     = 12
	fieldChunkBytes = 13
	fieldData       = 14
	fieldType       = 15
	fieldOp         = 16
	fieldCall       = 17
	fieldToken      = 18
	fieldSocket     = 19
	fieldProof      = 20
	fieldWire       = 21
	fieldFormation  = 22

	fieldFrame = 1 // of LinkRequest and LinkResponse
)

const (
	maxHeader = 256      // all number fields with their tags
	maxCause  = 4 << 10  // longer ones are cut: they are read by people
	maxName   = 256      // of a token, a socket or a proof
	readUnit  = 16 << 10 // what gRPC reads at once: the largest HTTP/2 frame it accepts
)

// codec turns frames into messages of ring.proto and back for streams that grpc-go serves. It hands grpc-go the
// frame's own payload, which comes back to the frame pool once the bytes have
// left. The payload never is memory of AllReduce's caller.
type codec struct{}

// Name is that of the standard codec, since the bytes are plain protobuf.
func (codec) Name() string { return "proto" }

// Marshal encodes a *allreduce.Frame and takes ownership of it.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*allreduce.Frame)
	if !ok {
		return nil, fmt.Errorf("ring link cannot send a %T", v)
	}
	if f.Placed() { // gRPC would read it after SendMsg has returned
		f.Release()
		return nil, errPlaced
	}
	f.SwapToWire()
	payload := f.Data
	_, head := encode(make([]byte, 0, beforeFields+maxHeader+len(f.Cause)), f, 0)
	if len(payload) == 0 {
		f.Release()
		return mem.BufferSlice{mem.SliceBuffer(head)}, nil
	}
	// For payloads with a small capacity NewBuffer does not count references
	// and never calls Put: the frame is then left to the garbage collector.
	return mem.BufferSlice{mem.SliceBuffer(head), mem.NewBuffer(&payload, returnTo{f})}, nil
}

// beforeFields is room for what stands before a frame's fields: the tag of the frame, its length, and what else the caller puts before them.
const beforeFields = 16

// encode writes a message up to its payload, which follows it, into the room that b has, with so many bytes before it. It returns all the room, which may
// have grown, and the message.
func encode(b []byte, f *allreduce.Frame, before int) (room, message []byte) {
	b = appendFields(b[:beforeFields], &f.Header)
	if len(f.Data) > 0 {
		b = protowire.AppendTag(b, fieldData, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(len(f.Data)))
	}
	size := uint64(len(b) - beforeFields + len(f.Data)) //nolint:gosec // not negative
	from := beforeFields - protowire.SizeTag(fieldFrame) - protowire.SizeVarint(size)
	start := protowire.AppendTag(b[:from], fieldFrame, protowire.BytesType)
	protowire.AppendVarint(start, size)
	return b, b[from-before:]
}

// returnTo is a "pool" of one payload: Put is gRPC saying that it needs the
// bytes no more.
type returnTo struct{ f *allreduce.Frame }

func (r returnTo) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (r returnTo) Put(*[]byte)       { r.f.Release() }

func appendFields(b []byte, h *allreduce.Header) []byte {
	number := func(field protowire.Number, v uint64) {
		if v != 0 {
			b = protowire.AppendTag(b, field, protowire.VarintType)
			b = protowire.AppendVarint(b, v)
		}
	}
	number(fieldKind, uint64(h.Kind))
	number(fieldJob, h.Job)
	number(fieldEpoch, h.Epoch)
	number(fieldSequence, h.Sequence)
	number(fieldIndex, h.Index)
	number(fieldLength, h.Length)
	number(fieldType, uint64(h.Type))
	number(fieldOp, uint64(h.Op))
	number(fieldCall, uint64(h.Call))
	number(fieldWire, uint64(h.Wire))
	number(fieldFormation, uint64(h.Formation))
	number(fieldRank, uint64(uint32(h.Rank))) //nolint:gosec // ranks are 0..65535
	number(fieldCount, h.Count)
	number(fieldAck, h.Ack)
	number(fieldWorldSize, uint64(uint32(h.WorldSize)))   //nolint:gosec // 1..65536
	number(fieldWindow, uint64(uint32(h.Window)))         //nolint:gosec // 2..1024
	number(fieldChunkBytes, uint64(uint32(h.ChunkBytes))) //nolint:gosec // up to 4 MiB
	if cause := h.Cause[:min(len(h.Cause), maxCause)]; cause != "" {
		b = protowire.AppendTag(b, fieldCause, protowire.BytesType)
		b = protowire.AppendString(b, cause)
	}
	for _, t := range []struct {
		field protowire.Number
		text  string
	}{{fieldToken, h.Token}, {fieldSocket, h.Socket}, {fieldProof, h.Proof}} {
		if t.text != "" {
			b = protowire.AppendTag(b, t.field, protowire.BytesType)
			b = protowire.AppendString(b, t.text)
		}
	}
	return b
}

var errPlaced = errors.New("a payload in memory of the group's caller cannot travel on grpc-go's stream")

// slot is where a message is decoded to: a frame from this pool.
type slot struct {
	pool    *allreduce.Pool
	landing allreduce.Landing // where payloads shall lie; nil: in frames
	frame   *allreduce.Frame
	decoder decoder // of the message under way
}

// Unmarshal decodes into a *slot. Nothing of data is kept.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	s, ok := v.(*slot)
	if !ok {
		return fmt.Errorf("ring link cannot receive into a %T", v)
	}
	r := data.Reader()
	defer r.Close() //nolint:errcheck // never fails
	return s.decode(r, nil)
}

// source is a message as it is read.
type source interface {
	io.Reader
	io.ByteReader
	// Remaining is how many bytes of the message are left.
	Remaining() int
	// Discard reads over bytes.
	Discard(n int) (int, error)
}

// decode reads a message. payload, if there is one, brings the frame's payload, when it is all that is left, to where it shall lie.
func (s *slot) decode(r source, payload func(s *slot, f *allreduce.Frame) error) error {
	tag, err := binary.ReadUvarint(r)
	if err != nil || tag != protowire.EncodeTag(fieldFrame, protowire.BytesType) {
		return fmt.Errorf("ring message does not hold a frame (tag %d, %w)", tag, orBadTag(err))
	}
	size, err := binary.ReadUvarint(r)
	if err != nil || size != uint64(r.Remaining()) { //nolint:gosec // Remaining is not negative
		return fmt.Errorf("ring message holds %d bytes, its frame claims %d", r.Remaining(), size)
	}
	d := &s.decoder
	*d = decoder{r: r, slot: s, frame: s.pool.Get(0), payload: payload}
	for r.Remaining() > 0 {
		if err := d.field(); err != nil {
			d.frame.Release()
			return fmt.Errorf("ring frame: %w", err)
		}
	}
	d.frame.SwapToWire()
	s.frame = d.frame
	*d = decoder{}
	return nil
}

var errBadTag = errors.New("unexpected field")

func orBadTag(err error) error {
	if err == nil {
		return errBadTag
	}
	return err
}

// decoder reads the fields of one frame.
type decoder struct {
	r       source
	slot    *slot
	frame   *allreduce.Frame
	payload func(s *slot, f *allreduce.Frame) error
}

// field reads one field. Unknown ones, of a later release, are skipped.
func (d *decoder) field() error {
	tag, err := binary.ReadUvarint(d.r)
	if err != nil {
		return err
	}
	field, wire := protowire.DecodeTag(tag)
	switch wire {
	case protowire.VarintType:
		v, err := binary.ReadUvarint(d.r)
		if err != nil {
			return err
		}
		return d.number(field, v)
	case protowire.BytesType:
		n, err := binary.ReadUvarint(d.r)
		if err != nil {
			return err
		}
		if n > uint64(d.r.Remaining()) { //nolint:gosec // Remaining is not negative
			return io.ErrUnexpectedEOF
		}
		return d.bytes(field, int(n)) //nolint:gosec // at most Remaining
	case protowire.Fixed64Type:
		return d.skip(8)
	case protowire.Fixed32Type:
		return d.skip(4)
	default:
		return fmt.Errorf("field %d: %w of wire type %d", field, errBadTag, wire)
	}
}

func (d *decoder) number(field protowire.Number, v uint64) error {
	h := &d.frame.Header
	small := func(to *int) error {
		if v > 1<<31-1 {
			return fmt.Errorf("field %d: %d is too large", field, v)
		}
		*to = int(v)
		return nil
	}
	switch field {
	case fieldKind:
		h.Kind = allreduce.Kind(min(v, 255)) //nolint:gosec // bounded
	case fieldType:
		h.Type = allreduce.Type(min(v, 255)) //nolint:gosec // bounded
	case fieldOp:
		h.Op = allreduce.Op(min(v, 255)) //nolint:gosec // bounded
	case fieldCall:
		h.Call = allreduce.Call(min(v, 255)) //nolint:gosec // bounded
	case fieldWire:
		h.Wire = allreduce.Wire(min(v, 255)) //nolint:gosec // bounded
	case fieldJob:
		h.Job = v
	case fieldEpoch:
		h.Epoch = v
	case fieldSequence:
		h.Sequence = v
	case fieldIndex:
		h.Index = v
	case fieldLength:
		h.Length = v
	case fieldFormation:
		if v >= 1<<24 {
			return fmt.Errorf("field %d: %d is too large", field, v)
		}
		h.Formation = uint32(v)
	case fieldRank:
		return small(&h.Rank)
	case fieldCount:
		h.Count = v
	case fieldAck:
		h.Ack = v
	case fieldWorldSize:
		return small(&h.WorldSize)
	case fieldWindow:
		return small(&h.Window)
	case fieldChunkBytes:
		return small(&h.ChunkBytes)
	default: // a field of a newer release
	}
	return nil
}

func (d *decoder) bytes(field protowire.Number, n int) error {
	switch field {
	case fieldData:
		pool := d.slot.pool
		if n > pool.Room() {
			return fmt.Errorf("a chunk of %d bytes, want at most %d", n, pool.Room())
		}
		header := d.frame.Header
		d.frame.Release()
		d.frame = pool.Get(n)
		d.frame.Header = header
		if d.payload != nil && n == d.r.Remaining() {
			return d.payload(d.slot, d.frame)
		}
		_, err := io.ReadFull(d.r, d.frame.Data)
		return err
	case fieldCause:
		return d.text(&d.frame.Cause, n, maxCause)
	case fieldToken:
		return d.text(&d.frame.Token, n, maxName)
	case fieldSocket:
		return d.text(&d.frame.Socket, n, maxName)
	case fieldProof:
		return d.text(&d.frame.Proof, n, maxName)
	default:
		return d.skip(n)
	}
}

func (d *decoder) text(to *string, n, limit int) error {
	if n > limit {
		return fmt.Errorf("a text of %d bytes, want at most %d", n, limit)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(d.r, b)
	*to = string(b)
	return err
}

func (d *decoder) skip(n int) error {
	_, err := d.r.Discard(n)
	return err
}

// readPool lends gRPC the buffers that it reads HTTP/2 frames into. Unlike
// gRPC's own it does not clear them, which cost 8 % of the time.
type readPool struct{ units sync.Pool }

// Get implements mem.BufferPool.
func (p *readPool) Get(n int) *[]byte {
	if n > readUnit {
		b := make([]byte, n)
		return &b
	}
	b, _ := p.units.Get().(*[]byte)
	if b == nil {
		unit := make([]byte, readUnit)
		b = &unit
	}
	*b = (*b)[:n]
	return b
}

// Put implements mem.BufferPool.
func (p *readPool) Put(b *[]byte) {
	if cap(*b) == readUnit {
		*b = (*b)[:readUnit]
		p.units.Put(b)
	}
}
