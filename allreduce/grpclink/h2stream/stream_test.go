package h2stream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Messages arrive whole and in order whatever either side takes at once: less than a message, a window smaller than it too.
func TestMessagesOfAnyLength(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ client, server Config }{
		{Config{Message: 1 << 20}, Config{Message: 1 << 20}}, // windows of 64 KiB, frames of 16 KiB
		{Config{Message: 1 << 20}, Config{Window: 4 << 20, Frame: 2 << 20, Message: 1 << 20}},
		{Config{Window: 1 << 20, Frame: 100_000, Message: 1 << 20}, Config{Window: 300_000, Frame: 70_001, Message: 1 << 20}},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			client, server := ends(t, c.client, c.server)
			lengths := []int{0, 1, 100, 511, 512, 513, 16<<10 - 15, 16 << 10, 65_535, 65_536, 300_000, 1<<20 - 1}
			var both errgroup.Group
			for i, end := range []*Stream{client, server} {
				received := make(chan struct{})
				all := sync.OnceFunc(func() { close(received) })
				both.Go(func() error {
					for n, length := range lengths {
						payload := bytes.Repeat([]byte{byte(n + i)}, length)
						if err := send(end, payload); err != nil {
							return err
						}
						clear(payload) // which must not be seen by the other side
					}
					if <-received; end == client { // first: a server's end is that of both directions
						return client.CloseSend()
					}
					return nil
				})
				both.Go(func() error {
					defer all()
					for n, length := range lengths {
						got, err := receive(t, end)
						if err != nil {
							return fmt.Errorf("message %d: %w", n, err)
						}
						if !bytes.Equal(got, bytes.Repeat([]byte{byte(n + 1 - i)}, length)) {
							return fmt.Errorf("message %d: %d bytes that are not those sent, want %d", n, len(got), length)
						}
					}
					all()
					_, err := end.Next()
					if !errors.Is(err, io.EOF) {
						return fmt.Errorf("after the last message: %w, want io.EOF", err)
					}
					return end.CloseSend()
				})
			}
			if err := both.Wait(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What goes wrong in a call reaches the client in words.
func TestFinishTellsWhy(t *testing.T) {
	t.Parallel()
	client, server := ends(t, small, small)
	want := status.Error(codes.FailedPrecondition, "100 % wrong:\n\u00fc")
	if err := send(server, []byte("last")); err != nil {
		t.Fatal(err)
	}
	if err := server.Finish(want); err != nil {
		t.Fatal(err)
	}
	if got, err := receive(t, client); string(got) != "last" {
		t.Errorf("got %q (%v) before the end, want the message", got, err)
	}
	if _, err := client.Next(); status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != status.Convert(want).Message() {
		t.Errorf("got %v, want %v", err, want)
	}
	if err := send(client, nil); err == nil {
		t.Error("a message can be sent on a stream that has ended")
	}
}

// An interrupt ends a straight read, and nothing else: neither a read that copies, nor the stream.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	p, s := served(t)
	payload := bytes.Repeat([]byte("x"), 2000)
	p.must(p.WriteData(1, false, data(string(payload))[:1000]))
	if n, err := s.Next(); n != len(payload) || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, len(payload))
	at, err := io.ReadFull(s, got[:995])
	if err != nil {
		t.Fatal(err)
	}
	s.Interrupt()
	p.must(p.WritePing(false, [8]byte{})) // is answered, though the read of its head is what the interrupt ends
	p.must(p.WriteData(1, false, payload[995:1500]))
	if n, err := s.ReadStraight(got[at:]); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("an interrupt before a frame: %d bytes, %v", n, err)
	}
	p.until(func(f http2.Frame) bool { return f.Header().Type == http2.FramePing })
	n, err := io.ReadFull(s, got[at:1400])
	if at += n; err != nil {
		t.Fatal(err)
	}
	for len(s.in.ahead) > 0 { // what is ahead needs no waiting
		n, err := s.ReadStraight(got[at : at+1])
		if at += n; err != nil {
			t.Fatal(err)
		}
	}
	s.Interrupt()
	if at < 1500 {
		if n, err := s.ReadStraight(got[at:]); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("an interrupt in a frame: %d bytes, %v", n, err)
		}
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	p.must(p.WriteData(1, false, payload[1500:]))
	if _, err := io.ReadFull(s, got[at:]); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("after the interrupts: %v, the payload is whole: %v", err, bytes.Equal(got, payload))
	}
}

// Close ends whoever waits to send or to receive.
func TestCloseEndsCalls(t *testing.T) {
	t.Parallel()
	_, s := served(t) // whose client takes 64 KiB and then nothing
	ended := make(chan error, 2)
	go func() { ended <- send(s, make([]byte, 100<<10)) }()
	go func() {
		_, err := s.Next()
		ended <- err
	}()
	s.Close()
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a call on a closed stream ended well")
		}
	}
}

// A message allocates nothing on its way.
//
//nolint:paralleltest // it counts the allocations of the whole process
func TestMessagesAllocateNothing(t *testing.T) {
	large := Config{Window: 64 << 20, Frame: 1 << 20, Message: 1 << 20} // more than is sent: nobody reads at the client
	client, server := ends(t, large, large)
	head, payload, room := make([]byte, Prefix+10), make([]byte, 50_000), make([]byte, 50_010)
	if err := send(server, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := receive(t, client); err != nil { // and the server's settings with it
		t.Fatal(err)
	}
	got := testing.AllocsPerRun(100, func() {
		if err := client.Send(head, payload); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Next(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, room); err != nil {
			t.Fatal(err)
		}
	})
	if got >= 1 {
		t.Errorf("%v allocations for a message, want none", got)
	}
}
