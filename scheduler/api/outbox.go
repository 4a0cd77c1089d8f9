package api

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Why a stream was ended from this side.
var (
	errStalled = errors.New("the other end of the stream does not read")
	errClosing = errors.New("the server is closing")
)

// stallLimit is how long a stream may make no progress at all before it is
// ended. Much shorter and a client that compiles or swaps is cut off; much
// longer and dead ones hold memory.
const stallLimit = 10 * time.Second

// finishLimit is how long the last queued messages may take.
const finishLimit = time.Minute

// outbox sends a stream's messages from a goroutine of its own, so that the
// handler is never stuck in Send and can end the stream: gRPC ends a blocked
// Send only when the handler returns.
type outbox[T any] struct {
	queue chan *T
	done  chan struct{} // closed when the sender has ended
	err   error         // why it ended; read after done
}

// newOutbox starts the sender. It ends with ctx, or at the first error; whoever
// owns the streams waits for it with wg. Depth bounds what is queued.
func newOutbox[T any](ctx context.Context, wg *sync.WaitGroup, depth int, send func(*T) error) *outbox[T] {
	o := &outbox[T]{queue: make(chan *T, depth), done: make(chan struct{})}
	wg.Go(func() {
		defer close(o.done)
		for {
			select {
			case <-ctx.Done():
				o.err = context.Cause(ctx)
				return
			case m, more := <-o.queue:
				if !more {
					return
				}
				if o.err = send(m); o.err != nil {
					return
				}
			}
		}
	})
	return o
}

// put queues a message. It blocks while the queue is full, at most stallLimit:
// then it returns errStalled. Any number of goroutines may put.
func (o *outbox[T]) put(ctx context.Context, m *T) error {
	select {
	case o.queue <- m:
		return nil
	default:
	}
	stall := time.NewTimer(stallLimit)
	defer stall.Stop()
	select {
	case o.queue <- m:
		return nil
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-stall.C:
		return errStalled
	}
}

// latest queues a message in place of any that waits. The queue must be of
// depth 1, and only one goroutine may queue.
func (o *outbox[T]) latest(m *T) {
	select {
	case <-o.queue:
	default:
	}
	o.queue <- m // there is room for it
}

// waiting reports whether a message is still in the queue.
func (o *outbox[T]) waiting() bool { return len(o.queue) > 0 }

// finish waits until all that was queued has been sent. Nothing may be put after it.
func (o *outbox[T]) finish(ctx context.Context) error {
	close(o.queue)
	stall := time.NewTimer(finishLimit)
	defer stall.Stop()
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-stall.C:
		return errStalled
	}
}

// poll calls a function again and again, each time after a pause, until it
// says that it is enough or until stop. It costs a timer, not a goroutine.
type poll struct {
	every time.Duration

	mu    sync.Mutex // guards what follows
	timer *time.Timer
	due   time.Time // no call before: the timer may have run out just before resume
	held  bool      // between pause and resume
	over  bool
}

// startPoll makes the first call after one pause. Look must not block.
func startPoll(every time.Duration, look func() (again bool)) *poll {
	p := &poll{every: every, due: time.Now().Add(every)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(every, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.over && !p.held && !time.Now().Before(p.due) && look() {
			p.again()
		}
	})
	return p
}

// again makes the next call after one whole pause. The caller holds mu.
func (p *poll) again() {
	p.due = time.Now().Add(p.every)
	p.timer.Reset(p.every)
}

// pause holds the calls back until resume: none runs after it has returned.
func (p *poll) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = true
	p.timer.Stop()
}

// resume makes the next call after one whole pause.
func (p *poll) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = false
	p.again()
}

// stop ends the calls: none runs after it has returned.
func (p *poll) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.timer.Stop()
}
