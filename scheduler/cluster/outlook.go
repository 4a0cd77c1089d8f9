package cluster

// outlook is the mean GPU time that jobs of a kin still need at the beginning of
// each bin, in GPU-seconds, as it was last reckoned. What is left at a bin follows
// from the hazards from there on; most of what is learned is of bins before it.
type outlook [historyBins]struct {
	left int64
	at   uint64 // how many lessons there were then, and one more; 0: it was never reckoned
}

// lessons count the edits of histories, so that outlooks are reckoned again only
// where they have become others. Every job is of the widest degree, so what is
// learned of one job is learned for all kins.
type lessons struct {
	count uint64
	last  [historyBins]uint64 // which was the last one about a bin or a later one
}

// learn notes that hazards have changed, those of a bin and of earlier ones.
func (l *lessons) learn(bin int32) {
	l.count++
	count, last := l.count, l.last[:bin+1]
	for i := range last {
		last[i] = count
	}
}

// maxOutlooks bounds the outlooks that a State keeps: some 900 bytes each.
const maxOutlooks = 256

// outlooks are the kins that have one, those that got it first to be robbed first.
type outlooks struct {
	kins []*kin
	next int
}

// give gives a kin an outlook that is yet to be reckoned.
func (o *outlooks) give(k *kin) {
	if len(o.kins) < maxOutlooks {
		o.kins, k.outlook = append(o.kins, k), new(outlook)
		return
	}
	from := o.kins[o.next]
	k.outlook, from.outlook = from.outlook, nil
	*k.outlook = outlook{}
	o.kins[o.next] = k
	o.next = (o.next + 1) % maxOutlooks
}

// remaining is the mean GPU time that a job still needs, in GPU-seconds.
func (s *State) remaining(k *kin, known []*History, bin int32) int64 {
	if k.by == nil { // it is for who only reads
		return s.lessons.reckon(&outlook{}, known, int(bin))
	}
	if k.outlook == nil {
		s.outlooks.give(k)
	}
	return s.lessons.reckon(k.outlook, known, int(bin))
}

// reckon brings an outlook up to date from a bin on, by the histories of its kin,
// and returns what is left there.
func (l *lessons) reckon(o *outlook, known []*History, bin int) int64 {
	end := bin // from here on it is up to date
	for end < historyBins && o[end].at <= l.last[end] {
		end++
	}
	left := binEdges[historyBins]
	if end < historyBins {
		left = o[end].left
	}
	for i := end - 1; i >= bin; i-- {
		left = leftAt(i, hazardOf(known, i), left)
		o[i].left, o[i].at = left, l.count+1
	}
	return left
}

// leftAt is what is left at the beginning of a bin with a hazard, if so much is
// left at its end.
func leftAt(bin int, hazard, left int64) int64 {
	width := binEdges[bin+1] - binEdges[bin]
	return (width*(historyOne-hazard>>1) + (historyOne-hazard)*left) >> historyBits
}
