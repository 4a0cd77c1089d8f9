package whole

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gangline/gangline/checkpoint"
)

const (
	// lockName is a file in a job's directory of whole copies that is held while a copy is made: an agent that is being replaced may still be at it.
	lockName = ".lock"
	// lockPoll is how often it is tried.
	lockPoll = 50 * time.Millisecond
	// maxVerified bounds the files that are remembered as verified: far more than the jobs of a node start from at once.
	maxVerified = 1 << 16
	// manifestFile is what makes a checkpoint whole.
	manifestFile = "MANIFEST.json"
)

// Request is one copy to make.
type Request struct {
	// Dir is the job's directory of whole copies; what Link gives lies on the same disk. Epoch is the one that starts.
	Dir   string
	Epoch uint64
	// Manifest is the checkpoint's manifest, which the caller has authenticated, and Bytes its file.
	Manifest checkpoint.Manifest
	Bytes    []byte
	// Link says under which path a file lies on this disk, named as in FileNames; false: it does not.
	Link func(name string) (path string, ok bool)
	// Room says whether so many bytes may be written.
	Room func(bytes int64) error
	// Peers gives other nodes' agents that may have files of it, by node, and Ask has one of them fill dst from a place of a file on. Either may be nil.
	Peers func() map[string]string
	Ask   func(ctx context.Context, address, name string, at int64, dst []byte) error
	// Far reads from the shared storage, verified.
	Far func(ctx context.Context, name string, at int64, dst []byte) error
}

// Made says what became of a request.
type Made struct {
	// Path is the copy's directory.
	Path string
	// Linked, FromPeers and FromFar are bytes, by where they came from; all 0: it was here.
	Linked, FromPeers, FromFar int64
	// Bad is what was not good on the way, and was had from elsewhere.
	Bad []error
}

// Copies makes whole copies. Its methods may be called concurrently.
type Copies struct {
	mu       sync.Mutex
	verified map[string]stamp
}

// New gives one that has verified nothing.
func New() *Copies { return &Copies{verified: map[string]stamp{}} }

// stamp is a file as it was when it was verified.
type stamp struct {
	epoch, inode uint64
	size         int64
	changed      time.Time
}

func stampOf(path string, epoch uint64) (stamp, bool) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return stamp{}, false
	}
	s := stamp{epoch: epoch, size: info.Size(), changed: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s, true
}

// known says whether a file was verified in this epoch and is the same since.
func (c *Copies) known(path string, epoch uint64) bool {
	now, ok := stampOf(path, epoch)
	c.mu.Lock()
	defer c.mu.Unlock()
	return ok && c.verified[path] == now
}

func (c *Copies) remember(path string, epoch uint64) {
	now, ok := stampOf(path, epoch)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.verified) >= maxVerified {
		clear(c.verified)
	}
	if ok {
		c.verified[path] = now
	}
}

// Make makes a copy, or finds the one that is there good. A copy that was cut short goes on from what verifies of it. The commit is the rename of the manifest, the last thing. Other
// steps' copies of the job go once this one stands. Errors: Room's, *checkpoint.CorruptError (no source has good bytes), the context's, the file systems'.
func (c *Copies) Make(ctx context.Context, r Request) (Made, error) {
	var out Made
	store, err := openAt(r.Dir, r.Manifest.Job)
	if err != nil {
		return out, err
	}
	unlock, err := lock(ctx, filepath.Join(r.Dir, lockName))
	if err != nil {
		return out, err
	}
	defer unlock()
	ref := r.Manifest.Ref()
	out.Path = filepath.Join(r.Dir, ref.String())
	if done, err := c.isHere(ctx, store, &r, &out); done || err != nil {
		return out, err
	}
	if err := r.admit(out.Path); err != nil {
		return out, err
	}
	from := newSources(&r, &out)
	_, err = store.ReceiveFrom(ctx, checkpoint.ReceiveRequest{
		Manifest: r.Bytes, Whole: true, Fetch: from.fetch,
		Link: func(name, to string) (bool, error) {
			return from.link(name, filepath.Join(r.Dir, filepath.FromSlash(to)))
		},
		Known:    func(name string) bool { return c.known(filepath.Join(out.Path, filepath.FromSlash(name)), r.Epoch) },
		Verified: func(name string) { c.remember(filepath.Join(out.Path, filepath.FromSlash(name)), r.Epoch) },
		Damaged:  from.bad,
	})
	if err != nil {
		return out, err
	}
	return out, dropOthers(r.Dir, ref)
}

// isHere says whether a whole copy stands and verifies. One that does not is one no longer, and what is good of it stays for the next.
func (c *Copies) isHere(ctx context.Context, store *checkpoint.Store, r *Request, out *Made) (bool, error) {
	here, err := os.ReadFile(filepath.Join(out.Path, manifestFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	var m checkpoint.Manifest
	if err == nil && bytes.Equal(here, r.Bytes) {
		if m, err = store.Load(ctx, r.Manifest.Ref()); err == nil {
			all := true
			for _, f := range m.FileNames() {
				all = all && c.known(filepath.Join(out.Path, filepath.FromSlash(f.Name)), r.Epoch)
			}
			if all {
				return true, nil
			}
			err = store.Verify(ctx, m)
		}
	} else if err == nil {
		err = fmt.Errorf("the copy of %s on the node's own disk is of another checkpoint", r.Manifest.Ref())
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err == nil {
		for _, f := range m.FileNames() {
			c.remember(filepath.Join(out.Path, filepath.FromSlash(f.Name)), r.Epoch)
		}
		return true, nil
	}
	out.Bad = append(out.Bad, fmt.Errorf("the copy on the node's own disk is made anew: %w", err))
	if err := os.Remove(filepath.Join(out.Path, manifestFile)); err != nil {
		return false, err
	}
	return false, syncDir(out.Path)
}

// admit asks for room for what has to be written: what neither lies on this disk nor has come already.
func (r *Request) admit(path string) error {
	need := int64(0)
	for _, f := range r.Manifest.FileNames() {
		if _, linkable := r.Link(f.Name); linkable {
			continue
		}
		if info, err := os.Stat(filepath.Join(path, filepath.FromSlash(f.Name))); err == nil && info.Size() == f.Size {
			continue
		}
		need += f.Size
	}
	if need -= checkpoint.PartBytes(path); need <= 0 {
		return nil
	}
	return r.Room(need)
}

func openAt(dir, job string) (*checkpoint.Store, error) {
	fsys, err := checkpoint.NewDir(dir)
	if err != nil {
		return nil, err
	}
	return checkpoint.Open(checkpoint.Config{FS: fsys, Job: job})
}

// lock waits until no other process makes a copy of the job here. The file goes with the job's directory.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640) //nolint:gosec // as the copies
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // which gives it back
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// Busy says whether a copy is being made in a job's directory just now.
func Busy(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // it was only locked
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// dropOthers removes other steps' copies.
func dropOthers(dir string, stays checkpoint.Ref) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if ref, perr := checkpoint.ParseRef(e.Name()); perr == nil && ref != stays {
			err = errors.Join(err, Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Remove removes a copy. It is none from the first moment on, so that what is cut short is never taken for one.
func Remove(path string) error {
	if err := os.Remove(filepath.Join(path, manifestFile)); err == nil {
		if err := syncDir(path); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(path)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
