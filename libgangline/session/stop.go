package session

import (
	"sync"
	"time"

	"github.com/gangline/gangline/nodeagent/workerclient"
)

// stopper remembers the agent's last wish that this process end. It is safe for concurrent use.
type stopper struct {
	mu     sync.Mutex
	asked  chan struct{} // closed at the first notice
	notice workerclient.Notice
}

func newStopper() *stopper { return &stopper{asked: make(chan struct{})} }

// follow takes notices until their channel is closed.
func (s *stopper) follow(notices <-chan workerclient.Notice) {
	first := true
	for n := range notices {
		s.mu.Lock()
		s.notice = n
		s.mu.Unlock()
		if first {
			close(s.asked)
			first = false
		}
	}
}

// Stop is the agent's wish that the process end.
type Stop struct {
	Asked  bool
	Reason string
	// Terminate and Kill are when SIGTERM and SIGKILL come.
	Terminate, Kill time.Time
}

// StopRequested says whether the agent has asked this process to end. It never waits.
func (s *Session) StopRequested() (Stop, error) {
	_, stop, err := s.worker()
	if err != nil {
		return Stop{}, err
	}
	select {
	case <-stop.asked:
	default:
		return Stop{}, nil
	}
	stop.mu.Lock()
	defer stop.mu.Unlock()
	return Stop{Asked: true, Reason: stop.notice.Reason, Terminate: stop.notice.Terminate, Kill: stop.notice.Kill}, nil
}
