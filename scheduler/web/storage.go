package web

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// maxUsers bounds the users whose checkpoints are shown: those who have most.
const maxUsers = 50

// Usage is what one user's checkpoints take of the shared storage, as the leader knows it.
type Usage struct {
	User               string
	Bytes, Checkpoints int64
	Limit              int64 // bytes; 0: none
	Measured           time.Time
}

// stored is one line of it.
type stored struct {
	User, Size, Limit, Measured string
	Checkpoints                 int64
	Over                        bool
}

// addStorage shows those who have most. A server that does not lead knows nothing of it.
func (v *view) addStorage(all []Usage, now time.Time) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Usage) int { return cmp.Compare(b.Bytes, a.Bytes) })
	v.MoreStored = max(0, len(all)-maxUsers)
	for _, u := range all[:len(all)-v.MoreStored] {
		line := stored{User: u.User, Size: bytesText(u.Bytes), Limit: "none", Checkpoints: u.Checkpoints, Measured: ago(now.Sub(u.Measured)) + " ago"}
		if u.Limit > 0 {
			line.Limit, line.Over = bytesText(u.Limit), u.Bytes > u.Limit
		}
		v.Stored = append(v.Stored, line)
	}
}

// bytesText writes a size in one unit.
func bytesText(b int64) string {
	const unit = 1 << 10
	if b < unit {
		return fmt.Sprintf("%d B", b)
	}
	v, i := float64(b)/unit, 0
	for v >= unit && i < 4 {
		v, i = v/unit, i+1
	}
	return fmt.Sprintf("%.4g %ciB", v, "KMGTP"[i])
}
