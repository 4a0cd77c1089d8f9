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
func (j *Job) crossing() Time { return j.crosses(int32(j.Bin), j.pace()) }

// crosses is when a job that holds GPUs reaches the bin after one, at its pace.
func (j *Job) crosses(bin int32, pace int64) Time {
	if !j.State.Holding() || bin+1 >= historyBins || pace == 0 {
		return 0
	}
	need := max(binEdges[bin+1]*gpuSecond-j.Attained, 0)
	wait := time.Duration((need+pace-1)/pace) * time.Millisecond
	if j.Epoch > 1 {
		wait += restartTime
	}
	return max(j.StartedAt.Add(wait), 1)
}

// trackCrossing takes in a job's new version.
func (s *State) trackCrossing(old Time, j *Job) {
	if !j.State.Holding() {
		return
	}
	at := j.crossing()
	if at == 0 || old == at {
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
	s.holding.scan(&s.jobs, func(j *Job) bool {
		if at := j.crossing(); at > 0 {
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
	own := s.mine()
	for moved := 0; moved < maxCrossings && len(s.crossings.heap) > 0; {
		c := s.crossings.heap[0]
		if c.At > s.now {
			return
		}
		j, mine := s.jobs.edit(own, uint64(c.Job))
		if j == nil || j.crossing() != c.At {
			s.crossings.heap.Pop()
			continue
		}
		moved++
		if !mine {
			j = s.replace(j)
		}
		s.touch(Change{Job: j.ID, Minor: true})
		k, pace := s.kinOf(j), j.pace()
		s.attain(k, j, max(j.Attained+j.served(s.now)*pace, binEdges[j.Bin+1]*gpuSecond))
		s.expect(k, j)
		if at := j.crosses(int32(j.Bin), pace); at > 0 {
			s.crossings.heap.Replace(Due{at, j.ID})
		} else {
			s.crossings.heap.Pop()
		}
	}
}
