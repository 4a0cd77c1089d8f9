package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Names inside a worker's directory.
const (
	specFile      = "spec.json"
	statusFile    = "status.json"
	lockFile      = "lock"
	socketFile    = "control.sock"
	ackedFile     = "acked"
	supervisorLog = "supervisor.log"
)

// launchFile is the content of spec.json: the spec and what Launch adds to it.
type launchFile struct {
	Spec Spec `json:"spec"`
	// Token marks every process of this worker, through its environment.
	Token string `json:"token"`
	// BootID is that of the launch: after a reboot nothing of the worker can be alive.
	BootID     string    `json:"boot_id"`
	LaunchedAt time.Time `json:"launched_at"`
}

// writeOnce creates dir/name with v as JSON, durably. It fails if the file exists. A torn file is possible after a
// power cut, but then the caller never got to act on it.
func writeOnce(dir, name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// replaceFile writes v as JSON to dir/name by rename, so that a reader sees the old or the new content, never half.
// With durable it returns only when the new content survives a power cut.
func replaceFile(dir, name string, v any, durable bool) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return replaceBytes(dir, name, data, durable)
}

// replaceBytes is replaceFile for any content.
func replaceBytes(dir, name string, data []byte, durable bool) error {
	tmp := filepath.Join(dir, name+".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if durable && err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		// On a full disk the half-written file itself takes room.
		return errors.Join(err, ignoreMissing(os.Remove(tmp)))
	}
	if durable {
		return syncDir(dir)
	}
	return nil
}

// readJSON fills v from dir/name.
func readJSON(dir, name string, v any) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(dir, name), err)
	}
	return nil
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// errLocked says that another open file description holds the lock.
var errLocked = errors.New("locked")

// takeLock opens path and takes its flock without waiting; errLocked if somebody has it. The lock lasts until every
// copy of the returned file is closed, in this process and in the children that got one.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errLocked
	}
	return nil, errors.Join(err, f.Close())
}

// dropLock frees the lock at once, even if a child that is just being forked still has a copy of the descriptor.
func dropLock(f *os.File) error {
	return errors.Join(unix.Flock(int(f.Fd()), unix.LOCK_UN), f.Close())
}

// tail returns the last n bytes of a small text file, or "".
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if info, err := f.Stat(); err == nil && info.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return ""
		}
	}
	data, _ := io.ReadAll(io.LimitReader(f, n)) // a hint for people: half of it is better than none
	return string(data)
}
