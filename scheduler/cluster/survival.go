package cluster

// Survival is how much GPU time jobs like one have needed, as a distribution.
// Unlike what the order follows it is not part of what replicas must agree on:
// forecasts read it.
type Survival struct {
	hazard [historyBins]int64
}

// Survival returns what jobs like this one have needed, and whether the cluster
// has seen enough jobs end to say anything.
func (s *State) Survival(spec *JobSpec, user string) (Survival, bool) {
	all, known := s.histories.Get("")
	return Survival{hazard: s.hazards(spec, user)}, known && all.Jobs >= enoughJobs
}

// Total is the GPU time that a job will have had when it ends, in
// milli-GPU-milliseconds, if it has had so much already: the quantile q, 0..1,
// of those that got as far.
func (v *Survival) Total(attained int64, q float64) int64 {
	left := 1.0 // the part of those that got as far that is still alive
	for i := int(binOf(attained)); i < historyBins; i++ {
		from, to := binEdges[i]*gpuSecond, binEdges[i+1]*gpuSecond
		begin := min(max(from, attained), to)
		// Ends are spread evenly over a bin, so who is within it already has
		// only the rest of its chance to end there before him.
		passed := float64(begin-from) / float64(to-from)
		h := float64(v.hazard[i]) / historyOne
		h = h * (1 - passed) / (1 - h*passed)
		if next := left * (1 - h); next > 1-q || h == 0 {
			left = next
			continue
		}
		part := (left - (1 - q)) / (left * h)
		return begin + int64(part*float64(to-begin))
	}
	return max(binEdges[historyBins]*gpuSecond, attained)
}
