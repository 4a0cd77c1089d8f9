package cluster

import "math/bits"

// hazards are the parts of the jobs like one that end in each bin, of those
// that reach it.
func (s *State) hazards(spec *JobSpec, user string) [historyBins]int64 {
	var k kin
	k.name(spec, user)
	hazard := priorHazards
	s.hazardsFrom(&k, 0, &hazard)
	return hazard
}

// hazardsFrom fills in the hazards from a bin on, as far as anything is known of
// them, and returns from which one on nothing is.
func (s *State) hazardsFrom(k *kin, bin int32, hazard *[historyBins]int64) (end int32) {
	var known [4]*History
	end = bin
	for i := range k.n {
		if known[i] = s.historyOf(k, i); known[i] != nil {
			end = max(end, known[i].bins)
		}
	}
	from := &priorHazards
	if h := known[0]; h != nil && s.own != nil && h.by == s.own {
		from, known[0] = s.widest.hazards(h), nil
	}
	copy(hazard[bin:end], from[bin:end])
	for _, h := range known {
		if h != nil {
			h.refine(hazard, bin)
		}
	}
	return end
}

// widest is the hazards of the widest degree, with which every prediction begins:
// between two of them only a few change.
type widest struct {
	of    *History
	found [historyBins]int64
	stale uint64 // a bit for each bin in which found is no longer what it was of
}

// hazards are what the history says now, until it is edited.
func (w *widest) hazards(h *History) *[historyBins]int64 {
	if w.of != h {
		*w = widest{of: h, found: priorHazards, stale: 1<<historyBins - 1}
	}
	for ; w.stale != 0; w.stale &= w.stale - 1 {
		i := bits.TrailingZeros64(w.stale)
		w.found[i] = h.refined(i, priorHazards[i])
	}
	return &w.found
}

// learned is the least that bins may be.
func (h *History) learned() int32 {
	for i := historyBins - 1; i >= 0; i-- {
		if h.Reached[i] > 0 || (i+1 < historyBins && h.Alive[i+1] > 0) {
			return int32(i) + 1
		}
	}
	return 0
}

// refine turns the hazards of a wider degree into those of this one, from a bin on.
func (h *History) refine(hazard *[historyBins]int64, bin int32) {
	for i := int(bin); i < int(h.bins); i++ {
		hazard[i] = h.refined(i, hazard[i])
	}
}

// refined is the hazard of a bin if it is so much in the wider degree.
//
// Processors divide floats several times as fast as whole numbers. Below 2^53
// both are exact as floats, as are all here: counts are below 2^32, and hazards
// are at most historyOne. A quotient that is not whole is further below the next
// whole number (by one part of the divisor at least) than it is rounded (by 2^-53
// of itself). So the result is that of whole numbers, on every machine.
func (h *History) refined(bin int, hazard int64) int64 {
	const prior = priorJobs * historyUnit
	reached := int64(h.Reached[bin])
	if bin+1 < historyBins {
		reached += int64(h.Alive[bin+1]) * historyUnit
	}
	if reached == 0 { // then nothing ended there either
		return hazard
	}
	return int64(float64(int64(h.Ended[bin])*historyOne+prior*hazard) / float64(reached+prior))
}
