package cluster

// Roll finds what a follower of the state has of each job, by the job's number.
// The zero value of T stands for nothing. Numbers are given out in order, and
// most of those that are asked for are neighbours, so it is a row of pages and not
// a map. A page without jobs is let go. The row reaches from the page of the oldest
// job to that of the newest, and takes eight bytes for each 64 numbers in between.
// It is no part of a State. Its zero value is empty.
type Roll[T comparable] struct {
	first uint64 // number of the row's first page
	row   []*rollPage[T]
	spare *rollPage[T] // an empty one, for the next that is made
	count int
}

// rollSize is how many neighbours share a page.
const rollSize = 64

type rollPage[T comparable] struct {
	count int
	of    [rollSize]T
}

// Len is the number of jobs of which there is something.
func (r *Roll[T]) Len() int { return r.count }

// At is what there is of a job.
func (r *Roll[T]) At(id JobID) (of T) {
	if i := uint64(id)/rollSize - r.first; i < uint64(len(r.row)) && r.row[i] != nil {
		return r.row[i].of[id%rollSize]
	}
	return of
}

// Set replaces what there is of a job; by nothing, if it is the zero value.
func (r *Roll[T]) Set(id JobID, to T) {
	var nothing T
	number := uint64(id) / rollSize
	i := number - r.first
	if i >= uint64(len(r.row)) || r.row[i] == nil {
		if to == nothing {
			return
		}
		i = r.grow(number)
	}
	p := r.row[i]
	was := p.of[id%rollSize] == nothing
	p.of[id%rollSize] = to
	if is := to == nothing; is != was {
		r.tally(p, i, is)
	}
}

// tally counts one more of a page's jobs of which there is something, or one less.
func (r *Roll[T]) tally(p *rollPage[T], i uint64, less bool) {
	if !less {
		p.count++
		r.count++
		return
	}
	p.count--
	r.count--
	if p.count == 0 {
		r.leave(i)
	}
}

// grow makes the page of a number, and returns its place in the row.
func (r *Roll[T]) grow(number uint64) uint64 {
	switch {
	case len(r.row) == 0:
		r.first, r.row = number, append(r.row, nil)
	case number < r.first:
		longer := make([]*rollPage[T], r.first-number+uint64(len(r.row)))
		copy(longer[r.first-number:], r.row)
		r.first, r.row = number, longer
	}
	for number-r.first >= uint64(len(r.row)) {
		r.row = append(r.row, nil)
	}
	at := &r.row[number-r.first]
	if *at, r.spare = r.spare, nil; *at == nil {
		*at = &rollPage[T]{}
	}
	return number - r.first
}

// leave drops a page, and what of the row is no longer needed.
func (r *Roll[T]) leave(i uint64) {
	at := &r.row[i]
	r.spare, *at = *at, nil
	for len(r.row) > 0 && r.row[0] == nil {
		r.first, r.row = r.first+1, r.row[1:]
	}
	for n := len(r.row); n > 0 && r.row[n-1] == nil; n-- {
		r.row = r.row[:n-1]
	}
}

// All gives what there is of each job, by number. None may be set meanwhile.
func (r *Roll[T]) All() func(func(T) bool) {
	return func(yield func(T) bool) {
		var nothing T
		for _, p := range r.row {
			for i := 0; p != nil && i < rollSize; i++ {
				if p.of[i] != nothing && !yield(p.of[i]) {
					return
				}
			}
		}
	}
}
