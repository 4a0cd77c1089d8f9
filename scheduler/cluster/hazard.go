package cluster

import "slices"

// hazards are the parts of the jobs like one that end in each bin, of those
// that reach it.
func (s *State) hazards(spec *JobSpec, user string) (hazard [historyBins]int64) {
	var k kin
	k.name(spec, user)
	var room [4]*History
	known := s.known(&k, &room)
	for i := range hazard {
		hazard[i] = hazardOf(known, i)
	}
	return hazard
}

// known lists the histories of a kin that there are, the widest first.
func (s *State) known(k *kin, room *[4]*History) []*History {
	n, mine := 0, s.own != nil && k.by == s.own
	if mine && !slices.Contains(k.history[:k.n], nil) {
		return k.history[:k.n] // mostly
	}
	for i, h := range k.history[:k.n] {
		if h == nil || !mine {
			h, _ = s.histories.Get(k.keys[i])
		}
		if h != nil {
			room[n] = h
			n++
		}
	}
	return room[:n]
}

// hazardOf is the hazard of a bin, by the histories of a kin.
func hazardOf(known []*History, bin int) int64 {
	hazard := priorHazards[bin]
	for _, h := range known {
		hazard = h.refined(bin, hazard)
	}
	return hazard
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
