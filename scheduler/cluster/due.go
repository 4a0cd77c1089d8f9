package cluster

// Due is a job and when something of it is due.
type Due struct {
	At  Time
	Job JobID
}

func (d Due) before(o Due) bool { return d.At < o.At || (d.At == o.At && d.Job < o.Job) }

// DueHeap is a binary heap of what is due, the soonest first, at index 0; by job
// at equal times. It is typed by hand: container/heap allocates for each item.
type DueHeap []Due

// Push takes one in.
func (q *DueHeap) Push(d Due) {
	*q = append(*q, d)
	h := *q
	i := len(h) - 1
	for i > 0 && d.before(h[(i-1)/2]) {
		h[i] = h[(i-1)/2]
		i = (i - 1) / 2
	}
	h[i] = d
}

// Pop drops the soonest. There must be one.
func (q *DueHeap) Pop() {
	h := *q
	n := len(h) - 1
	last := h[n]
	*q = h[:n]
	if n > 0 {
		q.Replace(last)
	}
}

// Replace drops the soonest, of which there must be one, and takes another in.
func (q *DueHeap) Replace(d Due) {
	h := *q
	i := 0
	for c := 1; c < len(h); c = 2*i + 1 {
		soon := h[c]
		if c+1 < len(h) && h[c+1].before(soon) {
			c++
			soon = h[c]
		}
		if !soon.before(d) {
			break
		}
		h[i] = soon
		i = c
	}
	h[i] = d
}
