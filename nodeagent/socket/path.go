package socket

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gangline/gangline/nodeagent/reconcile"
)

// maxPath is the longest path that fits a Unix socket address on Linux: 108 bytes with the final NUL.
const maxPath = 107

// Path returns where the socket of one worker lies, and makes its folder (0700): "s" below the agent's state
// directory, or, when that path is too long for a Unix socket, a folder below the temporary directory whose name is
// derived from the state directory. The same agent gets the same path after a restart, unless TMPDIR changed
// meanwhile: keep the path with the worker.
func Path(stateDir string, key reconcile.Key) (string, error) {
	dir := filepath.Join(stateDir, "s")
	path := filepath.Join(dir, key.String()+".sock")
	if len(path) > maxPath {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(stateDir)) // never fails
		dir = filepath.Join(os.TempDir(), fmt.Sprintf("gangline-%d-%016x", os.Getuid(), sum.Sum64()))
		path = filepath.Join(dir, key.String()+".sock")
	}
	if len(path) > maxPath {
		return "", fmt.Errorf("agent socket %s: its path has %d bytes and a Unix socket allows %d: "+
			"give the agent a shorter state directory or TMPDIR", path, len(path), maxPath)
	}
	if err := ownDir(dir); err != nil {
		return "", fmt.Errorf("agent socket %s: %w", path, err)
	}
	return path, nil
}

// ownDir makes dir, or checks that it is ours alone: a folder below /tmp could be somebody else's trap.
func ownDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || int(owner.Uid) != os.Getuid() || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is not a folder of this user alone (mode 0700): remove it, or set another TMPDIR", dir)
	}
	return nil
}
