package session

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gangline/gangline/allreduce"
	"github.com/gangline/gangline/nodeagent/workerclient"
)

// Session is all that a process has open. Its methods may be called concurrently. The zero value is ready.
type Session struct {
	// Env gives the place of this process in its job; nil: workerclient.FromEnv.
	Env func() (workerclient.Environment, error)

	groups    table[*Group]
	left      table[*Group] // closed, with memory that was not freed; by the numbers of groups
	works     table[*Work]
	listeners table[net.Listener]
	feedbacks table[*allreduce.Feedback]

	checkpoints table[*Checkpoints]
	saves       table[*Save]
	opened      table[*Checkpoint]

	lost atomic.Int32 // the rank in the job that the last group to be closed lost, + 1; 0: none

	mu     sync.Mutex
	client *workerclient.Client // to the agent; nil until it is needed
	stop   *stopper
}

// worker gives the process's connection to its agent, which is made at the first call.
func (s *Session) worker() (*workerclient.Client, *stopper, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, s.stop, nil
	}
	env, err := s.place()
	if err != nil && os.Getenv("GANGLINE_AGENT_SOCKET") == "" {
		// Another launcher, such as torchrun, has started it as one of several: there is no agent to talk to.
		env, err = workerclient.Environment{WorldSize: 1, NumNodes: 1, ArrayIndex: -1, GPUShare: 1}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	client, err := workerclient.New(env)
	if err != nil {
		return nil, nil, err
	}
	s.client, s.stop = client, newStopper()
	go s.stop.follow(client.Notices()) // ends when the client is closed
	return s.client, s.stop, nil
}

// place reads where this process stands.
func (s *Session) place() (workerclient.Environment, error) {
	if s.Env != nil {
		return s.Env()
	}
	return workerclient.FromEnv()
}

// Group finds a group by its handle.
func (s *Session) Group(handle int64) (*Group, error) { return s.groups.get(handle, "group") }

// Start remembers a call under way. Give its handle back by Wait.
func (s *Session) Start(w *Work) int64 { return s.works.put(w) }

// Work finds a call under way.
func (s *Session) Work(handle int64) (*Work, error) { return s.works.get(handle, "work") }

// Wait waits for a call, and forgets it once it has ended.
func (s *Session) Wait(handle int64, most time.Duration) error {
	w, err := s.works.get(handle, "work")
	if err != nil {
		return err
	}
	ended, err := w.Wait(most)
	if ended {
		if _, gone := s.works.take(handle, "work"); gone != nil && err == nil {
			return gone // another thread has waited for it and was given its result
		}
	}
	return err
}

// NewFeedback makes up for what narrow forms lose of a vector of float32 of this length.
func (s *Session) NewFeedback(length int) (handle int64, err error) {
	if length < 0 || length > maxElements {
		return 0, invalid("feedback for %d elements", length)
	}
	return s.feedbacks.put(allreduce.NewFeedback(length)), nil
}

// maxElements bounds what a wrong length can ask for.
const maxElements = 1 << 40

// Feedback finds one by its handle.
func (s *Session) Feedback(handle int64) (*allreduce.Feedback, error) {
	return s.feedbacks.get(handle, "feedback")
}

// FreeFeedback forgets one.
func (s *Session) FreeFeedback(handle int64) error {
	_, err := s.feedbacks.take(handle, "feedback")
	return err
}

// CloseGroup leaves a group. It is known to Free for as long as it has memory that was not freed.
func (s *Session) CloseGroup(handle int64) error {
	g, err := s.groups.take(handle, "group")
	if err != nil {
		return err
	}
	lost := workerclient.NobodyLost
	if place := g.ring.Lost(); place >= 0 && place < len(g.members) {
		lost = g.members[place]
	}
	s.lost.Store(int32(lost + 1)) //nolint:gosec // a rank
	return g.close(func() { s.left.set(handle, g) })
}

// Free gives memory of a group's Alloc back.
func (s *Session) Free(handle int64, at unsafe.Pointer) error {
	g, err := s.groups.get(handle, "group")
	if err != nil {
		if g, err = s.left.get(handle, "group"); err != nil {
			return err
		}
	}
	over, err := g.free(at)
	if over {
		_, _ = s.left.take(handle, "group") // by whoever was first
	}
	return err
}

// Listen opens a port to which the previous rank of a ring can connect, for JoinRequest.Listener, and gives the address under which it
// listens. A group that joins with it closes it.
func (s *Session) Listen(address string) (handle int64, told string, err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return 0, "", fmt.Errorf("listen for the previous rank: %w", err)
	}
	return s.listeners.put(l), l.Addr().String(), nil
}

// CloseListener closes one that no group has joined with.
func (s *Session) CloseListener(handle int64) error {
	l, err := s.listeners.take(handle, "listener")
	if err != nil {
		return err
	}
	return l.Close()
}

// CloseAgent ends the connection to the agent, after it has taken the last progress. A later call makes a new one.
func (s *Session) CloseAgent() error {
	s.mu.Lock()
	client := s.client
	s.client, s.stop = nil, nil
	s.mu.Unlock()
	if client == nil {
		return nil
	}
	return client.Close()
}
