package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/checkpoint"
)

func TestCallsAreMadeInTheOrderInWhichTheyBegan(t *testing.T) {
	t.Parallel()
	var l lane
	var mu sync.Mutex
	var got, want []int
	first := make(chan struct{})
	var works []*Work
	for i := range 20 {
		want = append(want, i)
		works = append(works, l.start(t.Context(), func(context.Context) error {
			if i == 0 {
				<-first
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, i)
			return nil
		}))
	}
	if ended, err := works[19].Wait(time.Millisecond); ended || CodeOf(err) != Timeout {
		t.Errorf("a call behind one that waits: ended %v, %v", ended, err)
	}
	close(first)
	if err := l.run(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) { // without the lock: the last call has ended
		t.Errorf("the order was %v", got)
	}
	for _, w := range works {
		if ended, err := w.Wait(0); !ended || err != nil || !w.Done() {
			t.Errorf("a call that has ended: %v, %v", ended, err)
		}
	}
}

func TestPanicIsAnError(t *testing.T) {
	t.Parallel()
	var l lane
	_, err := l.start(t.Context(), func(context.Context) error { panic("a bug") }).Wait(-1)
	var p *PanicError
	if !errors.As(err, &p) || p.Value != "a bug" || CodeOf(err) != Panicked {
		t.Fatalf("got %v", err)
	}
	if err := l.run(t.Context(), func(context.Context) error { return nil }); err != nil {
		t.Errorf("the call after it: %v", err)
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	for want, err := range map[Code]error{
		OK:         nil,
		Invalid:    invalid("x"),
		RankLost:   fmt.Errorf("x: %w", &allreduce.RankLostError{Rank: 3, Cause: allreduce.ErrLeft}),
		Closed:     allreduce.ErrClosed,
		Timeout:    context.DeadlineExceeded,
		Fenced:     &allreduce.FencedError{},
		None:       checkpoint.ErrNoTensor,
		Damaged:    &checkpoint.CorruptError{},
		NoSpace:    &checkpoint.NoSpaceError{},
		Incomplete: checkpoint.ErrIncomplete,
		Busy:       allreduce.ErrBusy,
		Failed:     errors.New("x"),
		Panicked:   &PanicError{},
	} {
		if got := CodeOf(err); got != want {
			t.Errorf("%v has code %d, want %d", err, got, want)
		}
	}
	if got := RankOf(errors.Join(errors.New("x"), &allreduce.RankLostError{Rank: 3, Cause: allreduce.ErrLeft})); got != 3 {
		t.Errorf("the lost rank is %d", got)
	}
	if got := RankOf(errors.New("x")); got != -1 {
		t.Errorf("no lost rank is %d", got)
	}
}

// TestMemoryOutlivesItsGroup: what was allocated and not freed stays readable after the group was left, and its handle is good for Free alone.
func TestMemoryOutlivesItsGroup(t *testing.T) {
	t.Parallel()
	var s Session
	if _, err := s.Join(JoinRequest{Peers: []string{"a:1", "b:1"}, Rank: 1}); CodeOf(err) != Invalid || !strings.Contains(err.Error(), "secret") {
		t.Errorf("a join of two without a secret: %v", err)
	}
	handle, err := s.Join(JoinRequest{Peers: []string{""}})
	if err != nil {
		t.Fatal(err)
	}
	g, err := s.Group(handle)
	if err != nil {
		t.Fatal(err)
	}
	a, err := g.Alloc(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	b, err := g.Alloc(0)
	if err != nil || a == b {
		t.Fatal(b, err)
	}
	if err := s.CloseGroup(handle); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Group(handle); CodeOf(err) != Closed {
		t.Errorf("a closed group: %v", err)
	}
	if _, err := g.Alloc(1); CodeOf(err) != Closed {
		t.Errorf("memory of a closed group: %v", err)
	}
	for _, at := range []struct {
		p    func() error
		want Code
	}{
		{func() error { return s.Free(handle, a) }, OK},
		{func() error { return s.Free(handle, a) }, Invalid},
		{func() error { return s.Free(handle, b) }, OK},
		{func() error { return s.Free(handle, b) }, Closed},
	} {
		if err := at.p(); CodeOf(err) != at.want {
			t.Errorf("free: %v, want code %d", err, at.want)
		}
	}
}
