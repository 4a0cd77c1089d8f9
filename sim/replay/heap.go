package replay

import "github.com/gangline/gangline/scheduler/cluster"

// event is the end of a job's epoch: it has done its work, or has used up its grace.
type event struct {
	at    cluster.Time
	seq   uint64
	job   cluster.JobID
	epoch cluster.Epoch
	stop  bool // after an eviction
}

func (e *event) before(o *event) bool {
	return e.at < o.at || (e.at == o.at && e.seq < o.seq)
}

// heap holds events, the next one first: a binary heap by (time, sequence), typed by hand because container/heap
// allocates for each event that it is given.
type heap []event

func (h *heap) push(e event) {
	*h = append(*h, e)
	s := *h
	i := len(s) - 1
	for i > 0 && e.before(&s[(i-1)/2]) {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = e
}

// pop takes the next event. The heap must not be empty.
func (h *heap) pop() event {
	s := *h
	top := s[0]
	n := len(s) - 1
	last := s[n]
	s = s[:n]
	*h = s
	i := 0
	for c := 1; c < n; c = 2*i + 1 {
		if c+1 < n && s[c+1].before(&s[c]) {
			c++
		}
		if !s[c].before(&last) {
			break
		}
		s[i] = s[c]
		i = c
	}
	if n > 0 {
		s[i] = last
	}
	return top
}
