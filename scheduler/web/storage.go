package web

import (
	"cmp"
	"slices"
	"time"

	"github.com/gangline/gangline/checkpoint"
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
		line := stored{User: u.User, Size: checkpoint.BytesText(u.Bytes), Limit: "none", Checkpoints: u.Checkpoints, Measured: ago(now.Sub(u.Measured)) + " ago"}
		if u.Limit > 0 {
			line.Limit, line.Over = checkpoint.BytesText(u.Limit), u.Bytes > u.Limit
		}
		v.Stored = append(v.Stored, line)
	}
}
