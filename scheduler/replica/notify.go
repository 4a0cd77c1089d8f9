package replica

import "sync"

// notifier tells any number of listeners "look again". Missed news coalesce.
type notifier struct {
	mu sync.Mutex
	ch chan struct{} // closed by the next wake
}

// wait returns a channel that the next wake closes. Take it before looking.
func (n *notifier) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notifier) wake() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}
