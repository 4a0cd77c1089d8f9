package session

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// lane makes the calls of one group one after the other, in the order in which they were begun: all ranks must make them in the same
// order. It is safe for concurrent use.
type lane struct {
	mu   sync.Mutex
	tail chan struct{} // closed when the call begun last has ended; nil: there was none
}

// enter gives what to wait for before a call, or nil, and what to close after it.
func (l *lane) enter() (before, after chan struct{}) {
	after = make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	before, l.tail = l.tail, after
	return before, after
}

// run makes a call on the caller's own thread, when those begun before have ended.
func (l *lane) run(ctx context.Context, call func(context.Context) error) error {
	before, after := l.enter()
	defer close(after)
	if before != nil {
		<-before
	}
	return guarded(ctx, call)
}

// start lets a goroutine make a call, when those begun before have ended.
func (l *lane) start(ctx context.Context, call func(context.Context) error) *Work {
	var err error
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	w := &Work{ended: ended, result: func() error { return err }, cancel: cancel}
	before, after := l.enter()
	go func() { // ends with the call; Group.Close ends all calls
		defer cancel()
		if before != nil {
			<-before
		}
		err = guarded(ctx, call)
		close(after)
		close(ended)
	}()
	return w
}

// guarded turns a panic into an error, also that of memory which is none: an address that a caller got wrong.
func guarded(ctx context.Context, call func(context.Context) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return call(ctx)
}

// Work is a call under way. It is safe for concurrent use.
type Work struct {
	ended  <-chan struct{}
	result func() error // once ended is closed
	cancel func()
}

// Done says whether the call has ended.
func (w *Work) Done() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// Wait waits until the call has ended, at most the time given if that is not negative, and returns its error. If the time was not enough the
// call goes on, and the code of the error is Timeout.
func (w *Work) Wait(most time.Duration) (ended bool, err error) {
	if w.Done() {
		return true, w.result()
	}
	if most < 0 {
		<-w.ended
		return true, w.result()
	}
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-w.ended:
		return true, w.result()
	case <-timer.C:
		return false, fmt.Errorf("%w: the call was not done after %v", errTimeout, most)
	}
}

// Cancel gives the call up: that breaks the group for all ranks, unless the call has ended or not yet begun. The caller must still Wait, after
// which nothing touches the memory any more.
func (w *Work) Cancel() { w.cancel() }
