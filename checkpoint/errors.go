package checkpoint

import (
	"errors"
	"fmt"
	"syscall"
)

// Sentinel errors: what a caller branches on. Each comes wrapped in a sentence that names the thing.
var (
	// ErrNone says that the directory holds no complete checkpoint at all: start from nothing.
	ErrNone = errors.New("no checkpoint")
	// ErrAllBad says that complete checkpoints are there and not one of them verifies. It is not ErrNone:
	// starting from nothing would throw away work that a person may still save.
	ErrAllBad = errors.New("no checkpoint verifies")
	// ErrFenced says that a newer epoch of the job has begun: this writer must stop and exit.
	ErrFenced = errors.New("epoch is fenced")
	// ErrNotBegun says that the caller's epoch was never begun with Store.Fence.
	ErrNotBegun = errors.New("epoch has not begun")
	// ErrIncomplete says that not every rank's shard is there, so there is nothing to commit.
	ErrIncomplete = errors.New("checkpoint is incomplete")
	// ErrCommitted says that the step is already committed in this epoch and can not change any more.
	ErrCommitted = errors.New("checkpoint is already committed")
	// ErrInvalid says that the caller's request breaks a rule of the format.
	ErrInvalid = errors.New("invalid request")
	// ErrInUse says that a checkpoint is pinned, that somebody reads it, or that another one refers to it.
	ErrInUse = errors.New("checkpoint is in use")
	// ErrNewest says that removing a checkpoint would leave nothing newer that verifies.
	ErrNewest = errors.New("it is the newest checkpoint")
	// ErrKey says that a checkpoint is encrypted with a key that is not given. It is not damaged: give the key.
	ErrKey = errors.New("no key for the checkpoint")
	// ErrUnauthenticated says that no key has authenticated a manifest where one must have. Whether it is an old one or a forged one a person decides.
	ErrUnauthenticated = errors.New("no key has authenticated it")
	// ErrOlder says that what is there is older than what is known to have been committed, and the caller has asked not to take that.
	ErrOlder = errors.New("a newer checkpoint was committed")
	// ErrNoTensor says that the checkpoint holds no tensor of that name.
	ErrNoTensor = errors.New("no such tensor")
)

// CorruptError says that bytes on storage are not the bytes that were written.
type CorruptError struct {
	Path  string // file, relative to the checkpoint directory
	Chunk int    // chunk number in the file, counted from 0; -1 where the whole file is meant
	Want  string // what the manifest or the format says
	Got   string // what is there
}

// Error names the file, the chunk, and both values.
func (e *CorruptError) Error() string {
	where := e.Path
	if e.Chunk >= 0 {
		where = fmt.Sprintf("%s chunk %d", e.Path, e.Chunk)
	}
	return fmt.Sprintf("%s is corrupt: want %s, got %s: resume from an older checkpoint and check the storage", where, e.Want, e.Got)
}

// NoSpaceError says that the storage was full. The half-written file has been removed, and earlier
// checkpoints are untouched. errors.Is(err, syscall.ENOSPC) holds.
type NoSpaceError struct {
	Path  string // file being written, relative to the checkpoint directory
	Bytes int64  // size the whole file needs
	Err   error  // the system's error: ENOSPC or EDQUOT
}

// Error names the path, the need, and what to do.
func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("write %s: no space: the file needs %d bytes: free space (or raise the quota), or keep fewer checkpoints; earlier checkpoints are untouched: %v",
		e.Path, e.Bytes, e.Err)
}

// Unwrap gives the system's error.
func (e *NoSpaceError) Unwrap() error { return e.Err }

// wrapWrite turns a full disk into a NoSpaceError and gives any other error its path.
func wrapWrite(path string, size int64, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &NoSpaceError{Path: path, Bytes: size, Err: err}
	}
	return fmt.Errorf("write %s: %w", path, err)
}
