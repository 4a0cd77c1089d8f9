package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

var (
	// ErrInUse says that another agent works on the same state directory.
	ErrInUse = errors.New("state directory is in use")
	// ErrUnknown says that no worker of this key is on this node (any more).
	ErrUnknown = errors.New("no such worker on this node")
	// ErrCollected says that the worker ran here, its end was acknowledged, and its directory is gone; it is never run again.
	ErrCollected = errors.New("worker already ran on this node and was collected")
	// ErrClosed says that the Manager was closed.
	ErrClosed = errors.New("worker manager is closed")
)

const (
	// stopWait bounds Manager.Stop: a fresh supervisor answers within milliseconds, one on a swapping node in seconds.
	stopWait = 5 * time.Second
	// Waits between two tries to reach a supervisor whose lock is held but whose socket does not answer.
	redialMin = 4 * time.Millisecond
	redialMax = 500 * time.Millisecond
	// A killed agent's half-made child holds the lock until its exec, longer on a loaded node: so many tries, so far apart.
	openTries = 50
	openPause = 20 * time.Millisecond
)

// Config holds what a Manager needs besides its directory.
type Config struct {
	// Supervisor is the command that runs Supervise on the directory appended to it; required. The agent passes
	// {"/proc/self/exe", "supervise"}, so that a supervisor is always of its agent's own release.
	Supervisor []string
	// Logger takes events of workers; nil discards them.
	Logger *slog.Logger
}

// Manager owns the workers of one node on behalf of the agent. All methods may be called concurrently.
type Manager struct {
	dir     string // holds "lock", "collected" and "workers/"
	cfg     Config
	log     *slog.Logger
	boot    string
	lock    *os.File
	changed chan struct{}

	ctx    context.Context //nolint:containedctx // the life of the manager's goroutines
	cancel context.CancelFunc
	wg     sync.WaitGroup // one watcher for each worker that has not exited

	ioMu sync.Mutex // one Ack or Collect at a time changes the directories of exited workers

	mu        sync.Mutex
	closed    bool
	workers   map[Key]*worker
	collected map[Key]bool
}

// worker is what the manager knows of one worker.
type worker struct {
	spec   Spec
	token  string
	dir    string
	exited chan struct{} // closed when status.State is Exited
	proc   *os.Process   // the supervisor, if this process started it; owned by the watcher

	status Status // guarded by Manager.mu
}

// Open takes the state directory (created if missing, 0700) and adopts every worker found in it: those with a living
// supervisor are followed again, those that ended keep their status, those whose supervisor vanished become Lost once
// nothing of them is alive. ErrInUse if another process has the directory; the error names it.
func Open(dir string, cfg Config) (*Manager, error) {
	if len(cfg.Supervisor) == 0 {
		return nil, errors.New("open worker manager: Config.Supervisor is empty")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open worker state: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "workers"), 0o700); err != nil {
		return nil, fmt.Errorf("open worker state: %w", err)
	}
	m := &Manager{
		dir: dir, cfg: cfg, log: cfg.Logger, changed: make(chan struct{}, 1),
		workers: map[Key]*worker{}, collected: map[Key]bool{},
	}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	if m.boot, err = bootID(); err != nil {
		return nil, fmt.Errorf("open worker state: %w", err)
	}
	if m.lock, err = lockState(dir); err != nil {
		return nil, err
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	if err := errors.Join(m.loadCollected(), m.adoptAll()); err != nil {
		return nil, errors.Join(fmt.Errorf("open worker state %s: %w", dir, err), m.Close())
	}
	return m, nil
}

// lockState takes the agent's lock and leaves its name in it for whoever comes second.
func lockState(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	for try := 1; ; try++ {
		f, err := takeLock(path)
		if errors.Is(err, errLocked) && try < openTries {
			time.Sleep(openPause)
			continue
		}
		if errors.Is(err, errLocked) {
			return nil, fmt.Errorf("open worker state %s: %w by %s: stop that agent, or give this one another state directory",
				dir, ErrInUse, cmp.Or(strings.TrimSpace(tail(path, 200)), "another process"))
		}
		if err != nil {
			return nil, fmt.Errorf("open worker state %s: %w", dir, err)
		}
		if err := f.Truncate(0); err == nil {
			// Only a hint for people: a full disk must not stop the agent.
			_, _ = fmt.Fprintf(f, "process %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0]))
		}
		return f, nil
	}
}

// Close ends the manager and frees the directory. Workers go on; the next Open adopts them.
func (m *Manager) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
	return dropLock(m.lock)
}

// Changed returns a channel that receives after something changed; several changes may share one value. It says only
// "look again": use Workers. One receiver is expected.
func (m *Manager) Changed() <-chan struct{} { return m.changed }

// Workers returns all known workers, ordered by key.
func (m *Manager) Workers() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Status, 0, len(m.workers))
	for _, w := range m.workers {
		all = append(all, w.status)
	}
	slices.SortFunc(all, func(a, b Status) int { return a.Key.Compare(b.Key) })
	return all
}

// Stop asks a worker to end; see Stop. It returns when the supervisor took the request (5 s at most), not when the
// worker ended. A worker that has exited is no error. A second Stop can only bring the deadlines forward.
func (m *Manager) Stop(key Key, stop Stop) error {
	stop, err := stop.check()
	if err != nil {
		return fmt.Errorf("stop worker %v: %w", key, err)
	}
	w, err := m.find(key)
	if err != nil {
		return fmt.Errorf("stop worker %v: %w", key, err)
	}
	ctx, cancel := context.WithTimeout(m.ctx, stopWait)
	defer cancel()
	for wait := redialMin; ; wait = min(2*wait, redialMax) {
		if isClosed(w.exited) {
			return nil
		}
		_, err := callControl(ctx, w.dir, controlRequest{Op: opStop, Stop: stop})
		if err == nil {
			return nil
		}
		select {
		case <-w.exited:
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("stop worker %v: its supervisor does not answer: %w: it is asked again at the next try", key, err)
		}
	}
}

// Spec returns what a worker was launched with, for an agent that has restarted.
func (m *Manager) Spec(key Key) (Spec, error) {
	w, err := m.find(key)
	if err != nil {
		return Spec{}, err
	}
	return w.spec, nil
}

// LogPath returns the file that a person would look at: the current segment of a stream. It may not exist (yet).
func (m *Manager) LogPath(key Key, stream Stream) (string, error) {
	w, err := m.find(key)
	if err != nil {
		return "", fmt.Errorf("log of worker %v: %w", key, err)
	}
	return filepath.Join(w.dir, string(stream)+".log"), nil
}

// ReadLog opens a stream of a worker at an offset in written bytes; a negative offset counts back from the present
// end. With follow, reads wait for more until the worker has exited and everything is read. The reader lives until
// ctx ends or it is closed; close it.
func (m *Manager) ReadLog(ctx context.Context, key Key, stream Stream, offset int64, follow bool) (*LogReader, error) {
	w, err := m.find(key)
	if err != nil {
		return nil, fmt.Errorf("read log of worker %v: %w", key, err)
	}
	return openLog(ctx, w, stream, offset, follow)
}

func (m *Manager) find(key Key) (*worker, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workers[key]
	if w == nil {
		return nil, ErrUnknown
	}
	return w, nil
}

func (m *Manager) statusOf(w *worker) Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.status
}

// setStatus records what was learned and says "look again". What only the manager knows is kept.
func (m *Manager) setStatus(w *worker, st Status) {
	m.mu.Lock()
	old := w.status
	st.GPUs, st.Labels, st.Acked = old.GPUs, old.Labels, old.Acked
	st.Key = w.spec.Key
	if st.LaunchedAt.IsZero() {
		st.LaunchedAt = old.LaunchedAt
	}
	if old.State == Exited {
		st.State = Exited // an exit is never taken back
	}
	w.status = st
	if st.State == Exited && old.State != Exited {
		close(w.exited)
	}
	m.mu.Unlock()
	if st.State != old.State {
		m.log.Info("worker "+string(st.State), "job", st.Key.Job, "epoch", st.Key.Epoch, "rank", st.Key.Rank,
			"reason", st.Reason)
	}
	m.notify()
}

func (m *Manager) notify() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}
