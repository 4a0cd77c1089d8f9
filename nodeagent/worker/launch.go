package worker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Launch makes a worker exist: it writes the spec durably, then starts its supervisor. It returns without waiting for
// the worker's process; a command that cannot run shows as Exited with LaunchError. A key that is already known is no
// error and starts nothing; ErrCollected if it ran and is gone. An error means that nothing was started.
func (m *Manager) Launch(spec Spec) error {
	spec, err := spec.withDefaults()
	if err != nil {
		return err
	}
	w := &worker{
		spec: spec, token: rand.Text(), dir: m.workerDir(spec.Key), exited: make(chan struct{}),
		status: Status{
			Key: spec.Key, State: Starting, GPUs: spec.GPUs, Labels: spec.Labels, ExitCode: -1,
			LaunchedAt: time.Now(), BootID: m.boot, Reason: "its supervisor is being started",
		},
	}
	if known, err := m.reserve(w); known || err != nil {
		return err
	}
	if err := m.startSupervisor(w); err != nil {
		// The supervisor never ran, so the key is free again.
		m.mu.Lock()
		delete(m.workers, spec.Key)
		m.mu.Unlock()
		m.wg.Done()
		m.notify()
		return fmt.Errorf("launch worker %v: %w", spec.Key, err)
	}
	m.notify()
	go m.watch(w)
	return nil
}

// reserve enters w under its key, with a place in the wait group; known if the key is taken.
func (m *Manager) reserve(w *worker) (known bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := w.spec.Key
	switch {
	case m.closed:
		return false, fmt.Errorf("launch worker %v: %w", key, ErrClosed)
	case m.workers[key] != nil:
		return true, nil
	case m.collected[key]:
		return false, fmt.Errorf("launch worker %v: %w: launch the job's next epoch", key, ErrCollected)
	}
	m.workers[key] = w
	m.wg.Add(1)
	return false, nil
}

// startSupervisor does the three steps in the order that makes a double start impossible: spec durable, lock held,
// process. On an error nothing of it is left; a directory that was there before is left alone.
func (m *Manager) startSupervisor(w *worker) (err error) {
	err = os.Mkdir(w.dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: it may have run here already: see the agent's log of its start, end what is left of the worker, "+
			"then remove the directory", err)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(w.dir))
		}
	}()
	file := launchFile{Spec: w.spec, Token: w.token, BootID: m.boot, LaunchedAt: w.status.LaunchedAt}
	if err := writeOnce(w.dir, specFile, file); err != nil {
		return fmt.Errorf("write its spec: %w: free space on the node's state disk", err)
	}
	if err := syncDir(filepath.Dir(w.dir)); err != nil {
		return fmt.Errorf("write its spec: %w", err)
	}
	lock, err := takeLock(filepath.Join(w.dir, lockFile))
	if err != nil {
		return fmt.Errorf("lock its directory: %w", err)
	}
	defer lock.Close() //nolint:errcheck // the supervisor's copy keeps the lock
	out, err := os.Create(filepath.Join(w.dir, supervisorLog))
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // the supervisor's copy is what counts
	cmd := exec.Command(m.cfg.Supervisor[0], append(m.cfg.Supervisor[1:len(m.cfg.Supervisor):len(m.cfg.Supervisor)], w.dir)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{lock}
	// A session of its own: signals to the agent's process group or terminal do not reach it. Two threads of Go code
	// are plenty, whatever the machine's size; the worker's own environment comes from the spec alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start its supervisor %q: %w", strings.Join(m.cfg.Supervisor, " "), err)
	}
	w.proc = cmd.Process
	return nil
}

func (m *Manager) workerDir(key Key) string { return filepath.Join(m.dir, "workers", key.String()) }
