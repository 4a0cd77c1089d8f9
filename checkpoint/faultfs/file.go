package faultfs

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"syscall"
)

// file is an open file.
type file struct {
	fs   *FS
	n    *node
	name string
	life int
}

// begin is FS.begin, and refuses a file that was opened before a crash.
func (h *file) begin(op string) (bool, error) {
	torn, err := h.fs.begin(op, h.name)
	if err != nil {
		return false, err
	}
	if h.life != h.fs.life {
		h.fs.mu.Unlock()
		return false, fmt.Errorf("%s %s: opened before the crash: %w", op, h.name, ErrPower)
	}
	return torn, nil
}

// Write appends.
func (h *file) Write(p []byte) (int, error) {
	torn, err := h.begin("write")
	if err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if torn {
		h.n.data = append(h.n.data, p[:len(p)/2]...)
		h.n.data = append(h.n.data, make([]byte, len(p)-len(p)/2)...)
		return len(p), nil
	}
	room := int64(len(p))
	if c := h.fs.plan.Capacity; c > 0 {
		room = max(0, min(room, c-h.fs.root.bytes(map[*node]bool{})))
	}
	h.n.data = append(h.n.data, p[:room]...)
	if room < int64(len(p)) {
		return int(room), &fs.PathError{Op: "write", Path: h.name, Err: syscall.ENOSPC}
	}
	return len(p), nil
}

// bytes counts a file once, however many names it has.
func (n *node) bytes(seen map[*node]bool) int64 {
	if seen[n] {
		return 0
	}
	seen[n] = true
	sum := int64(len(n.data))
	for _, c := range n.names {
		sum += c.bytes(seen)
	}
	return sum
}

// Sync makes the content durable.
func (h *file) Sync() error {
	if _, err := h.begin("sync"); err != nil {
		return err
	}
	defer h.fs.mu.Unlock()
	h.n.durable = slices.Clone(h.n.data)
	return nil
}

// ReadAt reads from the current content.
func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if _, err := h.begin("read"); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Size gives the length.
func (h *file) Size() (int64, error) {
	if _, err := h.begin("size"); err != nil {
		return 0, err
	}
	defer h.fs.mu.Unlock()
	return int64(len(h.n.data)), nil
}

// Close does nothing: what was written stays as durable as it was.
func (h *file) Close() error { return nil }
