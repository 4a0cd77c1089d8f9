package checkpoint

import "io"

// FS is the part of a file system that checkpoints need. Names are slash-separated and relative to one
// directory, "." being the directory itself. A missing file gives an error that is fs.ErrNotExist, a
// taken name fs.ErrExist. Implementations are safe for concurrent use. Dir is the real one;
// faultfs.FS is the one that loses power.
type FS interface {
	// Mkdir makes one directory; its parent must exist.
	Mkdir(name string) error
	// Create opens a file for writing, emptied. With bulk set the caller promises to write only from
	// buffers of AlignedBuffer and in multiples of Align bytes, so that the page cache may be passed by.
	Create(name string, bulk bool) (WriteFile, error)
	// Open opens a file for reading.
	Open(name string) (ReadFile, error)
	// Rename replaces a file, or moves a directory to a free name, in one step that no reader sees half.
	Rename(from, to string) error
	// Remove deletes a file or an empty directory.
	Remove(name string) error
	// ReadDir lists a directory in the order of names.
	ReadDir(name string) ([]Entry, error)
	// SyncFile makes the content of a file survive a power cut, whoever wrote it.
	SyncFile(name string) error
	// SyncDir makes the entries of a directory survive a power cut.
	SyncDir(name string) error
}

// WriteFile is a file being written from its beginning to its end. One goroutine uses it at a time.
type WriteFile interface {
	io.Writer
	// Sync makes the content survive a power cut; the name needs FS.SyncDir.
	Sync() error
	io.Closer
}

// ReadFile is an open file. It is safe for concurrent use.
type ReadFile interface {
	io.ReaderAt
	// Size gives the length in bytes.
	Size() (int64, error)
	io.Closer
}

// Entry is one name in a directory. Size is in bytes, and 0 for a directory.
type Entry struct {
	Name  string
	Size  int64
	IsDir bool
	// Special says that it is neither a directory nor a plain file: a symbolic link, a socket.
	Special bool
}
