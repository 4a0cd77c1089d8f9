package main

import "sync"

// stopper is the wish that this worker stop soon, from a signal or from the agent. It is safe for concurrent use.
type stopper struct {
	once   sync.Once
	asked  chan struct{} // closed when somebody asked
	reason string        // set before asked closes
}

func newStopper() *stopper { return &stopper{asked: make(chan struct{})} }

// ask asks to stop; only the first reason counts.
func (s *stopper) ask(reason string) {
	s.once.Do(func() {
		s.reason = reason
		close(s.asked)
	})
}

// why gives the reason, and false while nobody has asked.
func (s *stopper) why() (string, bool) {
	select {
	case <-s.asked:
		return s.reason, true
	default:
		return "", false
	}
}
