package allreduce_test

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/allreduce/memlink"
)

// stuckLink is a link whose other side stops in the middle of a payload. It writes to the payload's memory as long as it is allowed to.
type stuckLink struct {
	allreduce.Link
	stuck, interrupted chan struct{}
}

func (l *stuckLink) Direct() bool                        { return false }
func (l *stuckLink) SendDirect(f *allreduce.Frame) error { return l.Send(f) }
func (l *stuckLink) Interrupt()                          { close(l.interrupted) }

func (l *stuckLink) RecvDirect(to allreduce.Landing) (*allreduce.Frame, error) {
	f, err := l.Recv()
	if err != nil || len(f.Data) == 0 {
		return f, err
	}
	memory := to.Place(&f.Header, len(f.Data))
	if memory == nil {
		return f, nil
	}
	close(l.stuck)
	for {
		select {
		case <-l.interrupted:
			if !to.Landed() {
				return nil, errors.New("Landed does not know of the interrupt")
			}
			return f, nil
		default:
			memory[0]++
		}
	}
}

// When a call returns, its vector is the caller's alone, also when a payload was coming to lie in it.
func TestVectorIsGivenBackInTheMiddleOfAPayload(t *testing.T) {
	t.Parallel()
	const n = 2
	ends := memlink.Ring(n)
	stuck := &stuckLink{Link: ends[0].Prev, stuck: make(chan struct{}), interrupted: make(chan struct{})}
	groups := make([]*allreduce.Group, n)
	for r, prev := range []allreduce.Link{stuck, ends[1].Prev} {
		g, err := allreduce.New(allreduce.Config{Job: 7, Epoch: 3, Rank: r, WorldSize: n, ChunkBytes: 64}, ends[r].Next, prev)
		if err != nil {
			t.Fatal(err)
		}
		groups[r] = g
	}
	defer closeAll(groups)
	var all errgroup.Group
	all.Go(func() error {
		_ = groups[1].AllReduce(t.Context(), allreduce.Of(make([]float32, 100)), allreduce.Sum) // the other rank's end ends it
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-stuck.stuck
		cancel()
	}()
	data := make([]float32, 100)
	if err := groups[0].AllReduce(ctx, allreduce.Of(data), allreduce.Sum); err == nil {
		t.Error("a call whose result never came ended well")
	}
	for i := range data { // the race detector would see the link's writes
		data[i] = 5
	}
	select {
	case <-stuck.interrupted:
	default:
		t.Error("the call returned and left its vector to the link")
		close(stuck.interrupted)
	}
	for i := range data {
		if data[i] != 5 {
			t.Fatalf("element %d became %v after the call", i, data[i])
		}
	}
	_ = all.Wait()
}
