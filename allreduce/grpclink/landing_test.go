package grpclink

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/grpclink/h2stream"
)

// place is a landing in one buffer.
type place struct {
	memory      []byte
	asked       chan struct{} // gets a token with each Place
	came        int
	landed      chan struct{} // gets a token with each Landed
	interrupted atomic.Bool
}

func (p *place) Came(n int) { p.came += n }
func (p *place) Place(_ *allreduce.Header, size int) []byte {
	p.asked <- struct{}{}
	return p.memory[:size]
}

func (p *place) Landed() bool {
	defer func() { p.landed <- struct{}{} }()
	return p.interrupted.Load()
}

// connected returns both ends of a connection.
func connected(t *testing.T, network, address string) (here, there net.Conn) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test's
	if here, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return here, there
}

// Memory that a payload is read to can be had back in the middle of it: nothing is written to it any more, and the stream goes on behind the
// payload.
func TestMemoryOfAPayloadIsGivenBack(t *testing.T) {
	t.Parallel()
	t.Run("data connection", func(t *testing.T) {
		t.Parallel()
		here, there := connected(t, "tcp", "127.0.0.1:0")
		pool := allreduce.NewPool(4000)
		payloadIsGivenBack(t, pool, here, newDataStream(there, pool), func(f *allreduce.Frame) []byte {
			var head [headBytes]byte
			putHead(&head, f)
			return head[:]
		})
	})
	t.Run("gRPC", func(t *testing.T) {
		t.Parallel()
		here, there := connected(t, "tcp", "127.0.0.1:0")
		pool := allreduce.NewPool(4000)
		call, err := h2stream.Dial(here, h2stream.Config{}, linkMethod, "here", false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(call.Close)
		served, err := h2stream.Serve(there, nil, h2stream.Config{Message: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(served.Close)
		payloadIsGivenBack(t, pool, here, newRPC(served, false), func(f *allreduce.Frame) []byte {
			_, message := encode(make([]byte, beforeFields, 200), f, h2stream.Prefix)
			message[0] = 0
			binary.BigEndian.PutUint32(message[1:], uint32(len(message)-h2stream.Prefix+len(f.Data)))
			n := len(message) + len(f.Data)
			return append([]byte{0, byte(n >> 8), byte(n), 0, 0, 0, 0, 0, 1}, message...) // a DATA frame of stream 1
		})
	})
}

// payloadIsGivenBack sends two frames to a stream and takes the memory of the first back. head is what stands before a frame's payload.
func payloadIsGivenBack(t *testing.T, pool *allreduce.Pool, here net.Conn, s stream, head func(*allreduce.Frame) []byte) {
	t.Helper()
	const size, half = 4000, 2000
	l := newLink(pool, func(*link) {})
	l.attach(s, nil)
	to := &place{memory: make([]byte, size), asked: make(chan struct{}, 9), landed: make(chan struct{}, 9)}
	to.interrupted.Store(true)
	type received struct {
		frame *allreduce.Frame
		err   error
	}
	got := make(chan received)
	go func() {
		for range 2 {
			f, err := l.RecvDirect(to)
			got <- received{f, err}
		}
	}()
	var wire bytes.Buffer
	var before int
	payload := bytes.Repeat([]byte{1}, size)
	for _, count := range []uint64{1, 2} {
		f := pool.Get(size)
		f.Header, f.Data = allreduce.Header{Kind: allreduce.KindData, Count: count}, payload
		before, _ = wire.Write(head(f))
		wire.Write(payload)
	}
	if _, err := here.Write(wire.Next(before + half)); err != nil {
		t.Fatal(err)
	}
	<-to.asked
	l.Interrupt()
	<-to.landed
	kept := bytes.Clone(to.memory)
	to.interrupted.Store(false)
	if _, err := here.Write(wire.Next(size - half)); err != nil {
		t.Fatal(err)
	}
	first := <-got
	if first.err != nil || first.frame.Placed() || len(first.frame.Data) != size {
		t.Fatalf("the frame that was interrupted: %v, %+v", first.err, first.frame)
	}
	if !bytes.Equal(kept, to.memory) {
		t.Error("the memory was written to after it had been given back")
	}
	if _, err := here.Write(wire.Bytes()); err != nil {
		t.Fatal(err)
	}
	second := <-got
	second.frame.Settle()
	if second.err != nil || !second.frame.Placed() || second.frame.Count != 2 || !bytes.Equal(to.memory, payload) {
		t.Errorf("the frame after it: %v, %+v", second.err, second.frame)
	}
	if to.came != 2*size {
		t.Errorf("it was told of %d bytes, want %d", to.came, 2*size)
	}
	second.frame.Release()
	if second.frame.Data != nil {
		t.Error("a frame in the pool holds memory that is not its own")
	}
}

// Memory of a group's caller never comes to gRPC, which reads payloads after SendMsg has returned, nor to who did not ask for it.
func TestCallersMemoryIsRefused(t *testing.T) {
	t.Parallel()
	pool := allreduce.NewPool(64 << 10)
	placed := func() *allreduce.Frame {
		f := pool.Get(0)
		f.Kind = allreduce.KindData
		f.Place(make([]byte, 64<<10))
		return f
	}
	if _, err := (codec{}).Marshal(placed()); !errors.Is(err, errPlaced) {
		t.Errorf("Marshal: %v, want a refusal", err)
	}
	here, _ := connected(t, "tcp", "127.0.0.1:0")
	l := newLink(pool, func(*link) {})
	l.attach(newDataStream(here, pool), nil)
	if err := l.Send(placed()); !errors.Is(err, errPlaced) {
		t.Errorf("Send: %v, want a refusal", err)
	}
	if err := l.SendDirect(placed()); err != nil || !l.Direct() {
		t.Errorf("SendDirect on a data connection: %v, Direct %v", err, l.Direct())
	}
}
