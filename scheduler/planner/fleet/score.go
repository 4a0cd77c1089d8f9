package fleet

// MixItem is one kind of request of the recent past. Scores that look ahead
// place so that the mix still fits.
type MixItem struct {
	GPUs   int32 // of the gang
	Share  int32 // thousandths of each GPU
	CPU    int64 // thousandths for each GPU
	Mem    int64 // bytes for each GPU
	Types  []string
	Weight int64 // how often it was asked for
}

// SetMix tells what has been asked for lately, and which part of the jobs that
// start do so where others ended, in thousandths (0: nothing ever ends).
func (f *Fleet) SetMix(mix []MixItem, churnMilli int32) {
	_, _ = mix, churnMilli
}
