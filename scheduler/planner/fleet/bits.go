package fleet

import "math/bits"

// set is a set of positions of nodes. The zero set is empty and holds none.
type set struct {
	words []uint64
	sum   []uint64 // bit i: words[i] is not zero
	count int32
}

func newSet(n int32) set {
	words := (n + 63) / 64
	both := make([]uint64, words+(words+63)/64)
	return set{words: both[:words:words], sum: both[words:]}
}

func (s *set) has(i int32) bool { return s.words[i>>6]>>(uint(i)&63)&1 != 0 }

func (s *set) add(i int32) {
	w := &s.words[i>>6]
	if bit := uint64(1) << (uint(i) & 63); *w&bit == 0 {
		*w |= bit
		s.sum[i>>12] |= 1 << (uint(i>>6) & 63)
		s.count++
	}
}

func (s *set) remove(i int32) {
	w := &s.words[i>>6]
	if bit := uint64(1) << (uint(i) & 63); *w&bit != 0 {
		s.count--
		if *w &^= bit; *w == 0 {
			s.sum[i>>12] &^= 1 << (uint(i>>6) & 63)
		}
	}
}

// reset empties the set.
func (s *set) reset() {
	if s.count > 0 {
		clear(s.words)
		clear(s.sum)
		s.count = 0
	}
}

// union adds all of another set of the same size.
func (s *set) union(t *set) {
	if t.count == 0 {
		return
	}
	for i, part := range t.sum {
		for s.sum[i] |= part; part != 0; part &= part - 1 {
			w := i<<6 | bits.TrailingZeros64(part)
			s.count += int32(bits.OnesCount64(t.words[w] &^ s.words[w]))
			s.words[w] |= t.words[w]
		}
	}
}

// next returns the first member from i on that is in only, if that is not nil,
// and not in but, if that is not nil; or -1.
func (s *set) next(i int32, only, but *set) int32 {
	w := i >> 6
	if int(w) >= len(s.words) {
		return -1
	}
	from := ^uint64(0) << (uint(i) & 63)
	for {
		x := s.words[w] & from
		if only != nil {
			x &= only.words[w]
		}
		if but != nil {
			x &^= but.words[w]
		}
		if x != 0 {
			return w<<6 | int32(bits.TrailingZeros64(x))
		}
		if w = s.nextWord(w + 1); w < 0 {
			return -1
		}
		from = ^uint64(0)
	}
}

// nextWord returns the first word from w on that is not zero, or -1.
func (s *set) nextWord(w int32) int32 {
	i := w >> 6
	if int(i) >= len(s.sum) {
		return -1
	}
	part := s.sum[i] & (^uint64(0) << (uint(w) & 63))
	for part == 0 {
		if i++; int(i) >= len(s.sum) {
			return -1
		}
		part = s.sum[i]
	}
	return i<<6 | int32(bits.TrailingZeros64(part))
}

// without counts the members that are not in another set.
func (s *set) without(but *set) int32 {
	if but == nil || s.count == 0 || but.count == 0 {
		return s.count
	}
	n := 0
	for i, part := range s.sum {
		for ; part != 0; part &= part - 1 {
			w := i<<6 | bits.TrailingZeros64(part)
			n += bits.OnesCount64(s.words[w] &^ but.words[w])
		}
	}
	return int32(n)
}
