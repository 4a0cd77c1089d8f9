package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/gangline/gangline/checkpoint"
)

// ErrPower is what every operation gives from the planned power cut until Crash.
var ErrPower = errors.New("power is out")

// Plan says what goes wrong. Operations are counted from 1 since the last Arm: each call of an FS method, and each
// Write, Sync, ReadAt and Size of a file; Close is not counted. The zero Plan lets everything work.
type Plan struct {
	// PowerAt is the operation at which the power goes out: it does not happen, nor does any later one. 0 is never.
	PowerAt int
	// FailAt is the operation that gives Err and does nothing. 0 is never.
	FailAt int
	Err    error
	// TornAt is the operation that, if it is a write, keeps only the first half of its bytes and says that all
	// went well. 0 is never.
	TornAt int
	// Capacity is how many bytes all files together may hold; a write beyond keeps what fits and gives ENOSPC. 0 is no limit.
	Capacity int64
	// Before, if not nil, runs before each operation, outside the lock, on the caller's goroutine: it may block (a slow disk), or
	// do something else to the file system at exactly this moment (its own operations are counted too). op is "write", "sync",
	// "read", "size", "mkdir", "create", "append", "link", "open", "rename", "remove", "readdir", "syncfile" or "syncdir".
	Before func(n int, op, name string)
}

// FS is a directory in memory. The zero value is not usable: use New. It is safe for concurrent use.
type FS struct {
	mu   sync.Mutex
	root *node
	plan Plan
	ops  int
	out  bool // power is out
	life int  // counts crashes: files opened before one are dead after it
}

// node is a file or a directory.
type node struct {
	dir     bool
	data    []byte
	durable []byte // content as of the last Sync

	names  map[string]*node
	kept   map[string]*node // names as of the last SyncDir
	change []change         // since then, in order
}

// change is one step in a directory's life: link a name (to nil: remove it), and for a rename unlink the old one with it.
type change struct {
	name string
	to   *node
	from string // "" if no rename
}

// New gives an empty directory that works.
func New() *FS { return &FS{root: newDir()} }

func newDir() *node {
	return &node{dir: true, names: map[string]*node{}, kept: map[string]*node{}}
}

// Arm sets what goes wrong from now on and counts operations from 1 again.
func (f *FS) Arm(p Plan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan, f.ops = p, 0
}

// Ops gives how many operations there were since Arm.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Flip inverts one bit of a file, on the medium: Sync does not mend it.
func (f *FS) Flip(name string, offset int64, bit uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return err
	}
	if n.dir || offset < 0 || offset >= int64(len(n.data)) {
		return fmt.Errorf("flip %s at %d: %w", name, offset, fs.ErrInvalid)
	}
	n.data = slices.Clone(n.data)
	n.data[offset] ^= 1 << (bit % 8)
	n.durable = n.data
	return nil
}

// Names lists all files and directories, sorted, directories with a slash at the end.
func (f *FS) Names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.root.list("")
}

func (n *node) list(prefix string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		if c := n.names[name]; c.dir {
			all = append(append(all, prefix+name+"/"), c.list(prefix+name+"/")...)
		} else {
			all = append(all, prefix+name)
		}
	}
	return all
}

// begin counts an operation and applies the plan. On success it holds the lock and the caller unlocks it.
func (f *FS) begin(op, name string) (torn bool, err error) {
	f.mu.Lock()
	f.ops++
	n, plan := f.ops, f.plan
	if plan.Before != nil {
		f.mu.Unlock()
		plan.Before(n, op, name)
		f.mu.Lock()
	}
	if f.out || plan.PowerAt > 0 && n >= plan.PowerAt {
		f.out = true
		f.mu.Unlock()
		return false, fmt.Errorf("%s %s: %w", op, name, ErrPower)
	}
	if plan.FailAt == n {
		f.mu.Unlock()
		return false, &fs.PathError{Op: op, Path: name, Err: plan.Err}
	}
	return plan.TornAt == n, nil
}

func (f *FS) find(name string) (*node, error) {
	at := f.root
	for part := range strings.SplitSeq(path.Clean(name), "/") {
		if part == "." || part == "" {
			continue
		}
		if !at.dir || at.names[part] == nil {
			return nil, &fs.PathError{Op: "find", Path: name, Err: fs.ErrNotExist}
		}
		at = at.names[part]
	}
	return at, nil
}

// parent gives the directory a name is in, and its last part.
func (f *FS) parent(name string) (*node, string, error) {
	dir, base := path.Split(path.Clean(name))
	n, err := f.find(dir)
	if err == nil && !n.dir {
		err = &fs.PathError{Op: "find", Path: name, Err: syscall.ENOTDIR}
	}
	return n, base, err
}

func apply(names map[string]*node, c change) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.to == nil {
		delete(names, c.name)
		return
	}
	names[c.name] = c.to
}

func (n *node) do(c change) {
	apply(n.names, c)
	n.change = append(n.change, c)
}

// Mkdir makes a directory.
func (f *FS) Mkdir(name string) error {
	if _, err := f.begin("mkdir", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		return err
	}
	if dir.names[base] != nil {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	dir.do(change{name: base, to: newDir()})
	return nil
}

// Create opens a file for writing, emptied.
func (f *FS) Create(name string, _ bool) (checkpoint.WriteFile, error) {
	if _, err := f.begin("create", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, err
	}
	n := dir.names[base]
	if n == nil {
		n = &node{}
		dir.do(change{name: base, to: n})
	}
	if n.dir {
		return nil, &fs.PathError{Op: "create", Path: name, Err: syscall.EISDIR}
	}
	n.data = nil
	return &file{fs: f, n: n, name: name, life: f.life}, nil
}

// Append opens a file that is there for writing from a place on; what lies behind it is cut off.
func (f *FS) Append(name string, at int64, _ bool) (checkpoint.WriteFile, error) {
	if _, err := f.begin("append", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if n.dir || at < 0 || at > int64(len(n.data)) {
		return nil, &fs.PathError{Op: "append", Path: name, Err: fs.ErrInvalid}
	}
	n.data = slices.Clone(n.data[:at])
	return &file{fs: f, n: n, name: name, life: f.life}, nil
}

// Link gives a file a second name, which must be free. It is durable as names are.
func (f *FS) Link(from, to string) error {
	if _, err := f.begin("link", from); err != nil {
		return err
	}
	defer f.mu.Unlock()
	n, err := f.find(from)
	if err != nil {
		return err
	}
	dir, base, err := f.parent(to)
	if err != nil {
		return err
	}
	if n.dir || dir.names[base] != nil {
		return &fs.PathError{Op: "link", Path: to, Err: fs.ErrExist}
	}
	dir.do(change{name: base, to: n})
	return nil
}

// Open opens a file for reading.
func (f *FS) Open(name string) (checkpoint.ReadFile, error) {
	if _, err := f.begin("open", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return nil, err
	}
	return &file{fs: f, n: n, name: name, life: f.life}, nil
}

// Rename replaces a file or moves a directory, within one directory.
func (f *FS) Rename(from, to string) error { return f.rename(from, to, false) }

// RenameNew is Rename to a name that must be free.
func (f *FS) RenameNew(from, to string) error { return f.rename(from, to, true) }

func (f *FS) rename(from, to string, free bool) error {
	if _, err := f.begin("rename", from); err != nil {
		return err
	}
	defer f.mu.Unlock()
	dir, oldBase, err := f.parent(from)
	if err != nil {
		return err
	}
	dir2, newBase, err := f.parent(to)
	if err != nil {
		return err
	}
	n := dir.names[oldBase]
	switch {
	case dir != dir2:
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.EXDEV}
	case n == nil:
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	case dir.names[newBase] != nil && (free || n.dir || dir.names[newBase].dir):
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	dir.do(change{name: newBase, to: n, from: oldBase})
	return nil
}

// Remove deletes a file or an empty directory.
func (f *FS) Remove(name string) error {
	if _, err := f.begin("remove", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		return err
	}
	n := dir.names[base]
	switch {
	case n == nil:
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	case n.dir && len(n.names) > 0:
		return &fs.PathError{Op: "remove", Path: name, Err: syscall.ENOTEMPTY}
	}
	dir.do(change{name: base})
	return nil
}

// ReadDir lists a directory.
func (f *FS) ReadDir(name string) ([]checkpoint.Entry, error) {
	if _, err := f.begin("readdir", name); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: syscall.ENOTDIR}
	}
	entries := make([]checkpoint.Entry, 0, len(n.names))
	for _, base := range slices.Sorted(maps.Keys(n.names)) {
		c := n.names[base]
		entries = append(entries, checkpoint.Entry{Name: base, Size: int64(len(c.data)), IsDir: c.dir})
	}
	return entries, nil
}

// SyncFile makes a file's content durable.
func (f *FS) SyncFile(name string) error {
	if _, err := f.begin("syncfile", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return err
	}
	n.durable = slices.Clone(n.data)
	return nil
}

// SyncDir makes a directory's names durable.
func (f *FS) SyncDir(name string) error {
	if _, err := f.begin("syncdir", name); err != nil {
		return err
	}
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err != nil {
		return err
	}
	n.kept, n.change = maps.Clone(n.names), nil
	return nil
}
