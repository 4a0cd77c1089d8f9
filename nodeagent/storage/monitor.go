package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// probeEvery is the pause between two probes; a few small operations of each node are nothing to a storage.
	probeEvery = 30 * time.Second
	// slowFrom is how long a probe may take: a small file, durable, that should take milliseconds.
	slowFrom = 5 * time.Second
	// silentFrom is from when a probe that has not ended counts as hanging.
	silentFrom = 30 * time.Second
	// lowFree is the free part of the storage below which it counts as nearly full.
	lowFree = 0.01
)

const probeText = "gangline probes whether checkpoints can be written here\n"

// Config is what a Monitor works with.
type Config struct {
	// Open gives the storage's root, anew for each probe, since it may be mounted later, or again. Required.
	Open func() (checkpoint.FS, error)
	// Name is the node's: each writes a file of its own. Required.
	Name string
	// Free gives the bytes that can still be written, and all there are; nil: nobody knows.
	Free func() (free, total uint64, err error)
	// Changed is called when the answer of Status has changed. Nil: nobody is told.
	Changed func(Status)
}

// Status is what is known of the storage.
type Status struct {
	// Problem is a sentence of what is wrong; empty: nothing is, or nothing is known yet.
	Problem string
	// Took is how long the last probe took that ended; 0: none has.
	Took time.Duration
}

// Monitor probes a storage. Its methods may be called concurrently.
type Monitor struct {
	cfg Config

	mu     sync.Mutex
	begun  time.Time // of the probe that is under way; zero: none is
	status Status
	told   string
}

// New gives a monitor that has not looked yet.
func New(cfg Config) *Monitor {
	if cfg.Changed == nil {
		cfg.Changed = func(Status) {}
	}
	return &Monitor{cfg: cfg}
}

// Status gives what is known by a time of the monotonic clock.
func (m *Monitor) Status(now time.Time) Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	if !m.begun.IsZero() && now.Sub(m.begun) >= silentFrom {
		s.Problem = fmt.Sprintf("the checkpoint storage has not answered for %s: saves and starts wait for it; look at its server and the mount", now.Sub(m.begun).Round(time.Second))
	}
	return s
}

// Run probes until ctx ends. A probe that hangs is left behind: it ends when the storage does answer.
func (m *Monitor) Run(ctx context.Context) error {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	ended := m.kick()
	for {
		m.tell()
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			ended = nil
		case <-ticker.C:
			if begun := m.kick(); begun != nil {
				ended = begun
			}
		}
	}
}

// kick begins a probe unless one is under way, and gives a channel that is closed when it has ended; nil: none was begun.
func (m *Monitor) kick() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.begun.IsZero() {
		return nil
	}
	m.begun = time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := m.probe()
		free, total, ferr := uint64(0), uint64(0), errors.ErrUnsupported
		if m.cfg.Free != nil {
			free, total, ferr = m.cfg.Free()
		}
		m.mu.Lock()
		took := time.Since(m.begun)
		m.begun = time.Time{}
		m.status = Status{Took: took, Problem: problem(err, took)}
		if m.status.Problem == "" && ferr == nil && total > 0 && float64(free) < lowFree*float64(total) {
			m.status.Problem = fmt.Sprintf("the checkpoint storage is nearly full: %.1f %% are free", 100*float64(free)/float64(total))
		}
		m.mu.Unlock()
	}()
	return done
}

// tell tells of a change, once. Only one goroutine may call it, Run's: of two, the one that looked first could tell last, and what is over would
// be what was said last.
func (m *Monitor) tell() {
	s := m.Status(time.Now())
	m.mu.Lock()
	kind := cut(s.Problem)
	same := kind == m.told
	m.told = kind
	m.mu.Unlock()
	if !same {
		m.cfg.Changed(s)
	}
}

// cut leaves of a problem what does not change from second to second.
func cut(problem string) string {
	const enough = 45
	return problem[:min(len(problem), enough)]
}

// probe writes a small file, durable, reads it back and removes it.
func (m *Monitor) probe() error {
	name := ".probe-" + m.cfg.Name
	root, err := m.cfg.Open()
	if err != nil {
		return err
	}
	f, err := root.Create(name, false)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, probeText)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = readBack(root, name)
	}
	return errors.Join(err, root.Remove(name))
}

func readBack(root checkpoint.FS, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	got := make([]byte, len(probeText))
	_, err = f.ReadAt(got, 0)
	if err == nil && string(got) != probeText {
		err = errDiffers
	}
	return errors.Join(err, f.Close())
}

var errDiffers = errors.New("what was written reads otherwise")

// problem names what a probe met, and what to do.
func problem(err error, took time.Duration) string {
	const the = "the checkpoint storage "
	switch {
	case err == nil && took >= slowFrom:
		return fmt.Sprintf(the+"is slow: a small durable write took %s", took.Round(100*time.Millisecond))
	case err == nil:
		return ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return the + "is full: remove checkpoints, or set checkpoint.keep in job files and checkpoints.user_limit in the policy"
	case errors.Is(err, syscall.EROFS):
		return the + "is read-only: nothing can be saved; after an error file systems are often remounted so, look at the kernel's log"
	case errors.Is(err, syscall.ESTALE):
		return the + "is stale: its server has forgotten this mount; unmount and mount it again"
	case errors.Is(err, fs.ErrPermission):
		return the + "may not be written by the agent's user: " + err.Error()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ENODEV):
		return the + "is not there: is it mounted? " + err.Error()
	case errors.Is(err, errDiffers):
		return the + "gives back other bytes than were written: save nothing there before somebody has looked at it"
	default:
		return the + "fails: " + err.Error()
	}
}
