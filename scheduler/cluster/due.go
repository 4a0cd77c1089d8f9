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
	h = h[:n]
	*q = h
	i := 0
	for c := 1; c < n; c = 2*i + 1 {
		if c+1 < n && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(last) {
			break
		}
		h[i] = h[c]
		i = c
	}
	if n > 0 {
		h[i] = last
	}
}
