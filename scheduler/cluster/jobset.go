package cluster

import (
	"cmp"
	"math/bits"
	"slices"
)

// jobSet is some of a table's jobs, by their ids: a bit for each. Like a table it
// copies on write: a copy of the struct is a snapshot as soon as both go on with
// other owners. It has no pointer to a job, so that nothing is written to it where a
// job gets a new version.
type jobSet struct {
	count int
	by    *owner       // who may write to pages
	pages []jobSetPage // by number
}

// jobSetPage is for as many ids as a table's root. It may be empty until a new one is
// made: few jobs that come and go need not make it each time.
type jobSetPage struct {
	number uint64
	bits   *jobBits
}

type jobBits struct {
	by    *owner
	has   uint64 // a bit for each leaf of which there are jobs
	words [tableFan]uint64
}

// find returns the page of a job, or nil. Mostly no page is missing between the first
// and that one.
func (s *jobSet) find(id JobID) *jobBits {
	number := uint64(id) >> (2 * tableBits)
	if pages := s.pages; len(pages) > 0 {
		if i := number - pages[0].number; i < uint64(len(pages)) && pages[i].number == number {
			return pages[i].bits
		}
	}
	if i, ok := s.search(number); ok {
		return s.pages[i].bits
	}
	return nil
}

// search returns where a page is, or would be.
func (s *jobSet) search(number uint64) (int, bool) {
	return slices.BinarySearchFunc(s.pages, number, func(p jobSetPage, n uint64) int { return cmp.Compare(p.number, n) })
}

// contains reports whether a job is in it.
func (s *jobSet) contains(id JobID) bool {
	b := s.find(id)
	return b != nil && b.words[id>>tableBits%tableFan]>>(id%tableFan)&1 != 0
}

// add puts a job in.
func (s *jobSet) add(own *owner, id JobID) {
	b := s.find(id)
	if b == nil || b.by != own {
		b = s.ownBits(own, id)
	}
	k, bit := id>>tableBits%tableFan, uint64(1)<<(id%tableFan)
	if b.words[k]&bit == 0 {
		b.words[k] |= bit
		b.has |= 1 << k
		s.count++
	}
}

// drop takes a job out, if it is in it.
func (s *jobSet) drop(own *owner, id JobID) {
	b, k, bit := s.find(id), id>>tableBits%tableFan, uint64(1)<<(id%tableFan)
	if b == nil || b.words[k]&bit == 0 {
		return
	}
	if b.by != own {
		b = s.ownBits(own, id)
	}
	s.count--
	if b.words[k] &^= bit; b.words[k] == 0 {
		b.has &^= 1 << k
	}
}

// ownBits returns the page of a job, made if there is none, to be written to.
func (s *jobSet) ownBits(own *owner, id JobID) *jobBits {
	if s.by != own {
		s.pages, s.by = slices.Clone(s.pages), own
	}
	number := uint64(id) >> (2 * tableBits)
	i, ok := s.search(number)
	if !ok {
		s.pages = slices.DeleteFunc(s.pages, func(p jobSetPage) bool { return p.bits.has == 0 })
		i, _ = s.search(number)
		b := &jobBits{by: own}
		s.pages = slices.Insert(s.pages, i, jobSetPage{number, b})
		return b
	}
	next := *s.pages[i].bits
	next.by = own
	s.pages[i].bits = &next
	return &next
}

// scan calls f for its jobs by id, as a table has them, until f returns false.
func (s *jobSet) scan(jobs *table[Job], f func(*Job) bool) {
	for _, p := range s.pages {
		for has := p.bits.has; has != 0; has &= has - 1 {
			k := uint64(bits.TrailingZeros64(has)) //nolint:gosec // 0..63
			leaf := jobs.leafOf(p.number<<(2*tableBits) | k<<tableBits)
			for word := p.bits.words[k]; word != 0; word &= word - 1 {
				if !f(leaf.items[bits.TrailingZeros64(word)]) {
					return
				}
			}
		}
	}
}
