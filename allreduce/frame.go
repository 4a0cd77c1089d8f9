package allreduce

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Kind says what a frame is for. The numbers travel on the wire and are those
// of FrameKind in proto/gangline/ring/v1/ring.proto.
type Kind uint8

// The kinds of frame. Data and Barrier travel from a rank to its next one and
// are counted by the window; all others travel both ways and are not.
const (
	// KindHello opens a link: who dials, for which job and epoch, with which window.
	KindHello Kind = 1
	// KindRefuse answers a hello that does not belong here; Cause says why.
	KindRefuse Kind = 2
	// KindData carries one chunk.
	KindData Kind = 3
	// KindBarrier carries nothing; it says that a rank and those before it have arrived.
	KindBarrier Kind = 4
	// KindCredit tells the previous rank how many frames were taken from the inbox.
	KindCredit Kind = 5
	// KindHeartbeat says that the sender lives and which heartbeat it heard last.
	KindHeartbeat Kind = 6
	// KindAbort says which rank is lost. It goes round the ring both ways.
	KindAbort Kind = 7
	// KindLeave says that the sender closed its group in good order.
	KindLeave Kind = 8
	// KindPath says, after the hellos, what the link's frames will travel on.
	KindPath Kind = 9
)

// Header is all of a frame but its payload. Fields that a kind does not use are zero.
type Header struct {
	Kind      Kind
	Job       uint64 // the job's number
	Epoch     uint64 // the job's nth launch
	Formation uint32 // the epoch's nth ring
	Sequence  uint64 // Data, Barrier: the nth call on the group, from 1; Heartbeat: the one under way, 0: none
	Index     uint64 // Data, Barrier: the nth frame of the call, from 0; Heartbeat: the call under way, see agree.go
	Length    uint64 // Data: elements in the whole vector; Heartbeat: bytes that came from the neighbour
	Call      Call   // Data: the collective
	Type      Type   // Data: what an element is
	Op        Op     // Data: how elements are combined; 0 where they are only copied
	Wire      Wire   // Data: the form of its elements; 0: as they are
	Rank      int    // the sender; in Abort the lost rank
	Count     uint64 // Credit: frames taken so far; Heartbeat: its number, from 1; Data of a broadcast: the root
	Ack       uint64 // Heartbeat: the number of the last heartbeat heard; 0: none
	Cause     string // Abort, Refuse: why, for a person

	WorldSize  int // Hello: ranks in the ring
	Window     int // Hello: frames that may be on their way
	ChunkBytes int // Hello: largest payload

	Token  string // Hello: a nonce of the sender
	Socket string // Hello of a server: a Unix socket for data; Path: the path chosen
	Proof  string // Hello of a server, Path: that the sender knows the group's secret
}

// Frame is what travels on a Link: a header and at most one chunk.
//
// A frame has one owner at a time. Link.Send passes it to the link, Link.Recv
// to the caller; the last owner calls Release. The payload is memory of the
// frame itself, so a link may hold it for as long as it likes, unless Place gave
// it another one: such a frame travels by DirectLink.SendDirect alone.
type Frame struct {
	Header
	// Data is the payload, whole elements in the machine's order of bytes (see
	// SwapToWire); empty for all kinds but Data.
	Data []byte

	memory []byte // whole backing array, aligned for any type; nil for a frame that is not pooled
	home   *sync.Pool
	owned  atomic.Bool
	placed bool // Data is memory of a group's caller
	begun  int  // bytes of a placed payload that lie in memory yet
	spoilt bool // the payload is not what came
}

// Place gives the frame a payload that is not its own, until Release.
func (f *Frame) Place(data []byte) { f.Data, f.placed = data, true }

// Placed says whether the payload is not the frame's own: whoever has a use for the bytes beyond the call that gave it the frame must refuse it.
func (f *Frame) Placed() bool { return f.placed }

// Begin returns own memory of a placed frame for the first n bytes of its payload. Settle brings them to their place: whoever has an address
// that cannot be written learns it in its own call.
func (f *Frame) Begin(n int) []byte {
	f.begun = n
	return f.memory[:n]
}

// Settle brings what Begin has put apart to its place.
func (f *Frame) Settle() {
	copy(f.Data, f.memory[:f.begun])
	f.begun = 0
}

// Displace gives the frame its own memory back as a payload, as long as the one that it had. What was in that is lost.
func (f *Frame) Displace() { f.Data, f.placed, f.spoilt = f.memory[:len(f.Data)], false, true }

// WireIsNative says whether elements travel as they lie in memory.
func WireIsNative() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

// SwapToWire turns the payload in place between the machine's order of bytes
// and the wire's, which is little-endian. On little-endian machines, all that
// we know of with a GPU, it does nothing.
func (f *Frame) SwapToWire() {
	if WireIsNative() {
		return
	}
	size := f.Type.Size()
	if f.Wire.narrow() {
		return // is little-endian by itself
	}
	for b := f.Data; size > 1 && len(b) >= size; b = b[size:] {
		slices.Reverse(b[:size])
	}
}

// Release gives the frame's memory back to its pool. The frame must not be
// used after. Releasing twice panics: it would give one memory to two owners.
func (f *Frame) Release() {
	if f.home == nil {
		return
	}
	if !f.owned.CompareAndSwap(true, false) {
		panic("allreduce: a frame was released twice")
	}
	if f.placed {
		f.Data = nil
	}
	f.placed, f.spoilt, f.begun = false, false, 0
	f.home.Put(f)
}

// wordBytes is the size of the largest element.
const wordBytes = 8

// smallRoom is the room of frames for short payloads and none, which most are that wait anywhere: credits, heartbeats, small vectors. They
// must not each hold a chunk.
const smallRoom = 32 << 10

// Pool lends frames with room for one chunk, and keeps released ones for the
// next Get. Memory is not cleared. It is safe for concurrent use.
type Pool struct {
	room   int
	frames sync.Pool
	small  sync.Pool // frames of smallRoom
}

// NewPool returns a pool of frames that hold chunks of up to chunkBytes bytes.
func NewPool(chunkBytes int) *Pool {
	return &Pool{room: max(1, chunkBytes)}
}

// Get returns a frame with a zero header and a payload of n bytes of
// unspecified content. It panics if n is larger than the pool's chunk: the
// caller checks lengths that came from outside first.
func (p *Pool) Get(n int) *Frame {
	if n > p.room {
		panic("allreduce: a frame was asked to hold more than one chunk")
	}
	home, room := &p.frames, p.room
	if n <= smallRoom && room > smallRoom {
		home, room = &p.small, smallRoom
	}
	f, _ := home.Get().(*Frame)
	if f == nil {
		words := make([]uint64, (room+wordBytes-1)/wordBytes) // aligned for any element
		f = &Frame{memory: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), room), home: home}
	}
	f.owned.Store(true)
	f.Header = Header{}
	f.Data = f.memory[:n]
	return f
}

// Room returns the largest number of bytes that Get accepts.
func (p *Pool) Room() int { return p.room }
