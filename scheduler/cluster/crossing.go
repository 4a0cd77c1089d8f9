package cluster

import "time"

// crossings knows when the jobs that hold GPUs reach their next bins: a heap of
// what was so once. What is not so any more is passed over when its time comes.
// It belongs to one State alone: a snapshot makes its own from the jobs, should
// anyone call Apply on it.
type crossings struct {
	known bool
	heap  DueHeap
}

// crossing is when a job that holds GPUs reaches its next bin, or 0 for never.
func (s *State) crossing(j *Job) Time { return s.crossingFrom(j, int32(j.Bin)) }

// crossingFrom is when a job that holds GPUs reaches the bin after one.
func (s *State) crossingFrom(j *Job, bin int32) Time {
	if !j.State.Holding() || bin+1 >= historyBins {
		return 0
	}
	rate := int64(j.Held()) * int64(j.Spec.Share())
	if rate == 0 {
		return 0
	}
	need := max(binEdges[bin+1]*gpuSecond-j.Attained, 0)
	wait := time.Duration((need+rate-1)/rate) * time.Millisecond
	if j.Epoch > 1 {
		wait += restartTime
	}
	return max(j.StartedAt.Add(wait), 1)
}

// trackCrossing takes in a job's new version.
func (s *State) trackCrossing(old was, j *Job) {
	if !s.crossings.known || !j.State.Holding() {
		return
	}
	at := s.crossing(j)
	if at == 0 || old.crossing == at {
		return
	}
	s.crossings.heap.Push(Due{at, j.ID})
	if len(s.crossings.heap) > 4*s.holding.count+1024 {
		s.crossings = crossings{} // mostly what is not so any more
	}
}

// findCrossings makes the crossings anew.
func (s *State) findCrossings() {
	s.crossings = crossings{known: true, heap: s.crossings.heap[:0]}
	s.holding.scan(func(j *Job) bool {
		if at := s.crossing(j); at > 0 {
			s.crossings.heap.Push(Due{at, j.ID})
		}
		return true
	})
}

// maxCrossings bounds the jobs that one command moves on; the next one does the
// rest. Each takes a microsecond or two.
const maxCrossings = 256

// cross moves on the jobs that have reached their next bin by now. What is
// expected of a job is nothing that a command does: no Result tells of it.
func (s *State) cross() {
	if s.still || !s.foresees() {
		return
	}
	if !s.crossings.known {
		s.findCrossings()
	}
	for moved := 0; moved < maxCrossings && len(s.crossings.heap) > 0; {
		c := s.crossings.heap[0]
		if c.At > s.now {
			return
		}
		old := s.Job(c.Job)
		if old == nil || s.crossing(old) != c.At {
			s.crossings.heap.Pop()
			continue
		}
		moved++
		j := s.amend(old)
		s.attain(j, max(j.AttainedAt(s.now), binEdges[j.Bin+1]*gpuSecond))
		s.foresee(j)
		if at := s.crossing(j); at > 0 {
			s.crossings.heap.Replace(Due{at, j.ID})
		} else {
			s.crossings.heap.Pop()
		}
	}
}
