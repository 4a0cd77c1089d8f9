package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"
)

// Align is the alignment in bytes of tensors in a shard file and of bulk writes: the page and the
// largest usual logical block of a disk.
const Align = 4096

// Files are for the job's user, and readable by its group.
const (
	dirPerm  = 0o750
	filePerm = 0o640
)

// Dir is a directory of the real file system, usually on shared storage. Use NewDir.
type Dir struct {
	root string
}

// NewDir gives the directory at path, which is made, with its parents, if it is not there.
func NewDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, dirPerm); err != nil {
		return nil, fmt.Errorf("make checkpoint directory: %w", err)
	}
	return &Dir{root: path}, nil
}

func (d *Dir) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// Mkdir makes one directory.
func (d *Dir) Mkdir(name string) error { return os.Mkdir(d.path(name), dirPerm) }

// Create opens a file for writing; bulk files pass the page cache by where the file system allows it.
func (d *Dir) Create(name string, bulk bool) (WriteFile, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if bulk {
		return openBulk(d.path(name), flags)
	}
	return os.OpenFile(d.path(name), flags, filePerm)
}

// Append opens a file that is there for writing from a place on, a multiple of Align if bulk is set; what lies behind it is cut off.
func (d *Dir) Append(name string, at int64, bulk bool) (WriteFile, error) {
	path := d.path(name)
	if err := os.Truncate(path, at); err != nil {
		return nil, err
	}
	if bulk {
		return openBulk(path, os.O_WRONLY|os.O_APPEND)
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, filePerm)
}

// Open opens a file for reading.
func (d *Dir) Open(name string) (ReadFile, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename replaces a file or moves a directory.
func (d *Dir) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

// RenameNew renames a file to a name that must be free: else fs.ErrExist. errors.ErrUnsupported: this file system can not tell in one step.
func (d *Dir) RenameNew(from, to string) error { return renameNew(d.path(from), d.path(to)) }

// Remove deletes a file or an empty directory.
func (d *Dir) Remove(name string) error { return os.Remove(d.path(name)) }

// ReadDir lists a directory. A name that vanishes while it is listed is left out.
func (d *Dir) ReadDir(name string) ([]Entry, error) {
	list, err := os.ReadDir(d.path(name))
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(list))
	for _, e := range list {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		entry := Entry{Name: e.Name(), IsDir: e.IsDir(), Special: !e.IsDir() && !info.Mode().IsRegular()}
		if !entry.IsDir {
			entry.Size = info.Size()
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// SyncFile makes the content of a file durable.
func (d *Dir) SyncFile(name string) error {
	f, err := os.Open(d.path(name))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// SyncDir makes the entries of a directory durable.
func (d *Dir) SyncDir(name string) error {
	f, err := os.Open(d.path(name))
	if err != nil {
		return err
	}
	defer f.Close()
	// Some network file systems can not sync a directory and say EINVAL: their servers make names durable.
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

type osFile struct{ *os.File }

// Size gives the length in bytes.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// AlignedBuffer gives n zeroed bytes whose address is a multiple of Align, as bulk writes need.
func AlignedBuffer(n int) []byte {
	raw := make([]byte, n+Align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(raw)))) & (Align - 1)
	return raw[skip : skip+n : skip+n]
}
