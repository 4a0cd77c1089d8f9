package replica

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// tasks are goroutines that Close waits for.
type tasks struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// start runs f in a goroutine, or reports that it is too late for that.
func (t *tasks) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// stop takes no new goroutines and waits for the others, or for ctx.
func (t *tasks) stop(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	done := make(chan struct{})
	go func() { // ends with the last task; outlives stop only if one hangs
		defer close(done)
		t.wg.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// await starts a request to Raft and waits for its answer, or for ctx. Raft's
// own waits have no deadline: they last for ever if the disk hangs.
func (r *Replica) await(ctx context.Context, request func() raft.Future) error {
	answer := make(chan error, 1)
	if !r.tasks.start(func() { answer <- request().Error() }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
