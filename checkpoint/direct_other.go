//go:build !linux

package checkpoint

import (
	"errors"
	"os"
)

// openBulk opens a file plainly: only Linux is given O_DIRECT.
func openBulk(path string, flags int) (WriteFile, error) { return os.OpenFile(path, flags, filePerm) }

// renameNew is of Linux alone.
func renameNew(string, string) error { return errors.ErrUnsupported }
