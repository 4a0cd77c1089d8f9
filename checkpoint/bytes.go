package checkpoint

import (
	"fmt"
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

// BytesText writes a number of bytes for people, in one unit and with four digits: 23.54 GiB.
func BytesText(b int64) string {
	const unit = 1024
	if b < unit {
		return fmt.Sprintf("%d B", b)
	}
	v, i := float64(b)/unit, 0
	for ; v >= unit && i < 4; i++ {
		v /= unit
	}
	return fmt.Sprintf("%.4g %ciB", v, "KMGTP"[i])
}
