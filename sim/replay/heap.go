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
	for i > 0 {
		up := (i - 1) / 2
		if !s[i].before(&s[up]) {
			break
		}
		s[i], s[up] = s[up], s[i]
		i = up
	}
}

// pop takes the next event. The heap must not be empty.
func (h *heap) pop() event {
	s := *h
	top := s[0]
	last := len(s) - 1
	s[0] = s[last]
	s = s[:last]
	*h = s
	i := 0
	for {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if s[c].before(&s[least]) {
				least = c
			}
		}
		if least == i {
			return top
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
}
