package allreduce

import "testing"

// A frame's payload may lie in the caller's vector only if the frame is the next of its call.
func TestFramesInTurnOnly(t *testing.T) {
	t.Parallel()
	data := func(sequence, index uint64) *Header { return &Header{Kind: KindData, Sequence: sequence, Index: index} }
	var l landing
	for i, c := range []struct {
		h    *Header
		turn bool
	}{
		{data(1, 1), false}, // the first one never came: so is nothing else of this call
		{data(1, 2), false},
		{data(2, 0), true},
		{data(2, 1), true},
		{&Header{Kind: KindHeartbeat, Sequence: 2, Index: 7}, false},
		{data(2, 2), true},
		{data(2, 4), false},
		{data(2, 5), false},
		{data(2, 3), false},
		{data(4, 0), true},
		{data(3, 0), false},
		{data(4, 1), false},
		{data(5, 0), true},
	} {
		if got := l.isNext(c.h); got != c.turn {
			t.Errorf("frame %d, %d of call %d: in turn is %v", i, c.h.Index, c.h.Sequence, got)
		}
		l.passed(c.h)
	}
}
