package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trashPrefix marks a directory that is being removed.
const trashPrefix = ".trash-"

// adoptAll finds every worker on disk. Directories without a spec never started anything and are removed.
func (m *Manager) adoptAll() error {
	root := filepath.Join(m.dir, "workers")
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if strings.HasPrefix(e.Name(), trashPrefix) {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
			continue
		}
		key, ok := parseKey(e.Name())
		if !ok {
			m.log.Warn("not a worker's directory: left alone", "path", dir)
			continue
		}
		if err := m.adopt(key, dir); err != nil {
			return err
		}
	}
	return nil
}

// adopt enters one worker found on disk.
func (m *Manager) adopt(key Key, dir string) error {
	var file launchFile
	if err := readJSON(dir, specFile, &file); err != nil || file.Spec.Key != key {
		// Launch starts nothing before the spec is durable, and the lock comes after the spec.
		if _, lockErr := os.Stat(filepath.Join(dir, lockFile)); errors.Is(lockErr, os.ErrNotExist) {
			m.log.Warn("unfinished launch removed", "job", key.Job, "epoch", key.Epoch, "rank", key.Rank)
			return os.RemoveAll(dir)
		}
		// The directory stays, so the key can not be launched again; the other workers must not suffer for it.
		m.log.Error("a started worker's spec is unreadable: end its processes by hand, then remove its directory",
			"job", key.Job, "epoch", key.Epoch, "rank", key.Rank, "path", dir, "err", err)
		return nil
	}
	w := &worker{spec: file.Spec, token: file.Token, dir: dir, exited: make(chan struct{})}
	st := Status{Key: key, State: Starting, ExitCode: -1, LaunchedAt: file.LaunchedAt, BootID: file.BootID}
	var found Status
	if readJSON(dir, statusFile, &found) == nil && found.Key == key {
		st = found
	}
	st.GPUs, st.Labels = file.Spec.GPUs, file.Spec.Labels
	_, err := os.Stat(filepath.Join(dir, ackedFile))
	st.Acked = err == nil
	w.status = st
	m.mu.Lock()
	m.workers[key] = w
	m.mu.Unlock()
	m.notify()
	if st.State == Exited {
		close(w.exited)
		return nil
	}
	m.wg.Add(1)
	go m.watch(w)
	return nil
}

// watch follows one worker until it has exited or the manager closes. It owns w.proc.
func (m *Manager) watch(w *worker) {
	defer m.wg.Done()
	for wait := redialMin; ; wait = min(2*wait, redialMax) {
		if m.subscribe(w) {
			wait = redialMin
		}
		if m.ctx.Err() != nil {
			break
		}
		// The lock, not a process number, says whether the supervisor lives.
		lock, err := takeLock(filepath.Join(w.dir, lockFile))
		if err == nil {
			m.settle(w)
			_ = dropLock(lock) // nothing was written
			break
		}
		if errors.Is(err, os.ErrNotExist) {
			m.lose(w, m.statusOf(w)) // somebody removed the directory: its supervisor ends by itself
			break
		}
		if !errors.Is(err, errLocked) {
			m.log.Error("cannot look at a worker's lock", "path", w.dir, "err", err)
		}
		select {
		case <-m.ctx.Done():
		case <-time.After(wait):
		}
	}
	if w.proc == nil {
		return
	}
	if m.ctx.Err() == nil {
		_, _ = w.proc.Wait() // its lock is free, so it has ended: only its zombie is left
		return
	}
	_ = w.proc.Release() // goes on without us
}

// subscribe reads statuses from the supervisor until it hangs up; false if it never answered.
func (m *Manager) subscribe(w *worker) bool {
	conn, err := dialControl(m.ctx, w.dir)
	if err != nil {
		return false
	}
	defer conn.Close() //nolint:errcheck // nothing was written that matters
	stop := context.AfterFunc(m.ctx, func() { _ = conn.SetDeadline(time.Now()) })
	defer stop()
	if m.ctx.Err() != nil || send(conn, controlRequest{Op: opSubscribe}) != nil {
		return false
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxControlLine)
	heard := false
	for lines.Scan() {
		var answer controlAnswer
		if json.Unmarshal(lines.Bytes(), &answer) != nil || answer.Status == nil {
			return heard
		}
		heard = true
		m.setStatus(w, *answer.Status)
	}
	return heard
}

// settle decides what became of a worker whose supervisor has ended, while holding its lock: the exit status on disk,
// or Lost once none of its processes is alive.
func (m *Manager) settle(w *worker) {
	var st Status
	err := readJSON(w.dir, statusFile, &st)
	if err == nil && st.Key == w.spec.Key && st.State == Exited {
		m.setStatus(w, st)
		return
	}
	if err != nil || st.Key != w.spec.Key {
		// Never written, or half written in a power cut. What was heard over the socket is better than nothing.
		st = m.statusOf(w)
	}
	if st.State == Exited && !st.Durable {
		// The supervisor told us the exit but was killed before the disk took it.
		m.record(w, st)
		return
	}
	m.lose(w, st)
}

// lose kills what is left of a worker without supervisor, then records it as Lost.
func (m *Manager) lose(w *worker, st Status) {
	why := "supervisor vanished: killed, or crashed"
	sameBoot := st.BootID == m.boot
	if !sameBoot {
		why = "supervisor vanished: the machine was restarted"
	}
	if hint := lastLine(tail(filepath.Join(w.dir, supervisorLog), 2000)); hint != "" {
		why += " (its last words: " + hint + ")"
	}
	st.State, st.Reason = Stopping, why+"; its processes are being killed"
	m.setStatus(w, st)
	if sameBoot && !m.killLeftovers(w, st) {
		return // closing: the next Open goes on
	}
	st.State, st.Lost, st.ExitCode, st.Reason = Exited, true, -1, why
	if st.ExitedAt.IsZero() {
		st.ExitedAt = time.Now()
	}
	m.record(w, st)
}

// killLeftovers kills until none is left; false if the manager closes first.
func (m *Manager) killLeftovers(w *worker, st Status) bool {
	for wait := killAgainMin; ; wait = min(2*wait, killAgainMax) {
		all, err := listProcesses()
		if err == nil {
			left := leftovers(all, st.PID, st.StartTicks, w.token)
			if len(left) == 0 {
				return true
			}
			err = signalAll(left, unix.SIGKILL)
		}
		if err != nil {
			m.log.Error("cannot kill what a worker left behind", "job", st.Key.Job, "epoch", st.Key.Epoch, "err", err)
		}
		select {
		case <-m.ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// record makes an exit durable in the supervisor's stead; it is told at once and retried until the disk takes it.
func (m *Manager) record(w *worker, st Status) {
	for wait := persistMin; ; wait = min(2*wait, persistMax) {
		final := st
		final.Durable = true
		err := replaceFile(w.dir, statusFile, final, true)
		if err == nil {
			m.setStatus(w, final)
			return
		}
		m.setStatus(w, st)
		if errors.Is(err, os.ErrNotExist) {
			return // the directory was removed: there is nothing to keep
		}
		select {
		case <-m.ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
