package worker

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// collectedFile lists the keys whose directories are gone, one per line, oldest first.
	collectedFile = "collected"
	// maxCollected bounds that list (about 2 MB): orders so old are fenced by the agent's epochs.
	maxCollected = 100_000
)

// Ack records durably that the scheduler knows of a worker's exit; from then on Collect may remove it. Calling it
// again is no error. It refuses a worker that has not exited, or whose exit is not on disk yet.
func (m *Manager) Ack(key Key) error {
	m.ioMu.Lock()
	defer m.ioMu.Unlock()
	w, err := m.find(key)
	if err != nil {
		return fmt.Errorf("acknowledge worker %v: %w", key, err)
	}
	st := m.statusOf(w)
	switch {
	case st.Acked:
		return nil
	case st.State != Exited:
		return fmt.Errorf("acknowledge worker %v: it is %s, not exited", key, st.State)
	case !st.Durable:
		return fmt.Errorf("acknowledge worker %v: its exit is not on disk yet: free space on the node's state disk", key)
	}
	f, err := os.OpenFile(filepath.Join(w.dir, ackedFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), syncDir(w.dir))
	}
	if err != nil {
		return fmt.Errorf("acknowledge worker %v: %w", key, err)
	}
	m.mu.Lock()
	w.status.Acked = true
	m.mu.Unlock()
	m.notify()
	return nil
}

// Collect removes acknowledged workers with their logs, oldest exit first: all that exited more than keepFor ago,
// and then more until the rest takes maxBytes or less on disk. It returns how many went.
func (m *Manager) Collect(keepFor time.Duration, maxBytes int64) (int, error) {
	m.ioMu.Lock()
	defer m.ioMu.Unlock()
	type candidate struct {
		w      *worker
		exited time.Time
		bytes  int64
	}
	var all []candidate
	m.mu.Lock()
	for _, w := range m.workers {
		if w.status.Acked && w.status.State == Exited {
			all = append(all, candidate{w: w, exited: w.status.ExitedAt})
		}
	}
	m.mu.Unlock()
	total := int64(0)
	for i := range all {
		all[i].bytes = dirBytes(all[i].w.dir)
		total += all[i].bytes
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(a.exited.Compare(b.exited), a.w.spec.Key.Compare(b.w.spec.Key))
	})
	oldest := time.Now().Add(-keepFor)
	var gone []*worker
	for _, c := range all {
		if !c.exited.Before(oldest) && total <= maxBytes {
			break
		}
		total -= c.bytes
		gone = append(gone, c.w)
	}
	if len(gone) == 0 {
		return 0, nil
	}
	return m.remove(gone)
}

// remove takes workers off the disk, after their keys are durably remembered.
func (m *Manager) remove(gone []*worker) (int, error) {
	var keys []Key
	for _, w := range gone {
		keys = append(keys, w.spec.Key)
	}
	if err := m.appendCollected(keys); err != nil {
		return 0, fmt.Errorf("collect workers: %w", err)
	}
	m.mu.Lock()
	for _, k := range keys {
		m.collected[k] = true
		delete(m.workers, k)
	}
	long := len(m.collected) > maxCollected
	m.mu.Unlock()
	m.notify()
	var errs []error
	if long {
		errs = append(errs, m.loadCollected())
	}
	for _, w := range gone {
		// Renamed first: a crash in the middle must not leave half a worker to adopt.
		trash := filepath.Join(filepath.Dir(w.dir), trashPrefix+w.spec.Key.String())
		err := os.Rename(w.dir, trash)
		if err == nil {
			err = os.RemoveAll(trash)
		}
		errs = append(errs, err)
	}
	return len(gone), errors.Join(errs...)
}

func (m *Manager) appendCollected(keys []Key) error {
	f, err := os.OpenFile(filepath.Join(m.dir, collectedFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteByte('\n') // ends a line that an earlier full disk cut short
	for _, k := range keys {
		fmt.Fprintln(&b, k)
	}
	_, err = f.WriteString(b.String())
	return errors.Join(err, f.Sync(), f.Close(), syncDir(m.dir))
}

// loadCollected reads the list, and halves it when it has grown too long.
func (m *Manager) loadCollected() error {
	path := filepath.Join(m.dir, collectedFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	var keys []Key
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if k, ok := parseKey(lines.Text()); ok {
			keys = append(keys, k)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if len(keys) > maxCollected {
		keys = keys[len(keys)-maxCollected/2:]
		var b strings.Builder
		for _, k := range keys {
			fmt.Fprintln(&b, k)
		}
		if err := replaceBytes(m.dir, collectedFile, []byte(b.String()), true); err != nil {
			return err
		}
	}
	collected := make(map[Key]bool, len(keys))
	for _, k := range keys {
		collected[k] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.collected = collected
	return nil
}

// dirBytes is the disk use of a worker's directory, as far as it can be read.
func dirBytes(dir string) int64 {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	total := int64(0)
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
	}
	return total
}
