package allreduce

import (
	"context"
	"sync"
)

// attended is the context of the call that waits. A context that ends during the call ends the group. What is told to the context is
// kept from one call to the next as long as that has the same one, so that a call allocates nothing.
type attended struct {
	mu     sync.Mutex // guards what follows
	done   <-chan struct{}
	inCall bool
	stop   func() bool
}

// enter begins a call. Contexts are compared by their channels: equal ones end together.
func (a *attended) enter(ctx context.Context, g *Group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	done := ctx.Done()
	a.inCall = true
	if done == a.done {
		return
	}
	if a.stop != nil {
		a.stop()
	}
	a.done, a.stop = done, nil
	if done != nil {
		a.stop = context.AfterFunc(ctx, func() { a.ended(ctx, g) })
	}
}

// ended ends the group, if the call under way has the context that ended.
func (a *attended) ended(ctx context.Context, g *Group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inCall && a.done == ctx.Done() {
		g.cancelled(context.Cause(ctx))
	}
}

// leave ends a call.
func (a *attended) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.inCall = false
}

// forget lets the last context go.
func (a *attended) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stop != nil {
		a.stop()
	}
	a.done, a.stop = nil, nil
}
