package checkpoint

import (
	"io/fs"
	"path/filepath"
)

// TreeBytes sums what the files below a directory hold, for bars and reports; what cannot be read counts nothing.
func TreeBytes(dir string) int64 {
	sum := int64(0)
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}
