package allreduce

import (
	"sync/atomic"
	"time"
)

// Stats is what a rank's calls have come to since its group was made. All ranks
// make the same calls, so who spends the least time in them is the one that
// comes last, and for whom the others wait.
type Stats struct {
	Calls int64         // that ended well
	Bytes int64         // of their vectors
	Busy  time.Duration // within them: waiting for other ranks, and moving and adding data
}

// meter counts what Stats tells. Only calls write, one at a time.
type meter struct{ calls, bytes, busy atomic.Int64 }

func (m *meter) count(bytes int, took time.Duration) {
	m.calls.Add(1)
	m.bytes.Add(int64(bytes))
	m.busy.Add(int64(took))
}

// Stats returns what was counted until now. It is safe for concurrent use.
func (g *Group) Stats() Stats {
	return Stats{Calls: g.meter.calls.Load(), Bytes: g.meter.bytes.Load(), Busy: time.Duration(g.meter.busy.Load())}
}
