package planner

import "github.com/gangline/gangline/scheduler/cluster"

// known finds what the index has of a job: its entry while it waits, its run
// while it holds GPUs. Ids are given in order, and most of those that are asked
// for are neighbours, so it is a row of pages and not a map: each change of each
// job looks here several times. A page without jobs is dropped. The row reaches
// from the page of the oldest job to that of the newest, and takes eight bytes
// for each 64 ids in between.
type known struct {
	first   uint64 // number of the row's first page
	row     []*page
	spare   *page // an empty one, for the next that is made
	waiting int   // entries
	holding int   // runs
}

// pageSize is how many neighbours share a page: one takes a kilobyte.
const pageSize = 64

type page struct {
	jobs  int // entries and runs
	slots [pageSize]slot
}

type slot struct {
	entry *entry
	run   *run
}

// at is what is known of a job; nothing, if its page is not there.
func (k *known) at(id cluster.JobID) slot {
	if i := uint64(id)/pageSize - k.first; i < uint64(len(k.row)) && k.row[i] != nil {
		return k.row[i].slots[id%pageSize]
	}
	return slot{}
}

// entry is a pending job's, or nil.
func (k *known) entry(id cluster.JobID) *entry { return k.at(id).entry }

// run is that of a job that holds GPUs, or nil.
func (k *known) run(id cluster.JobID) *run { return k.at(id).run }

// addEntry takes in a job that waits and is not known to.
func (k *known) addEntry(e *entry) {
	p := k.page(uint64(e.job.ID) / pageSize)
	p.slots[e.job.ID%pageSize].entry = e
	p.jobs++
	k.waiting++
}

// addRun takes in a job that holds GPUs and is not known to.
func (k *known) addRun(id cluster.JobID, r *run) {
	p := k.page(uint64(id) / pageSize)
	p.slots[id%pageSize].run = r
	p.jobs++
	k.holding++
}

// dropEntry forgets a job that is known to wait.
func (k *known) dropEntry(id cluster.JobID) {
	k.row[uint64(id)/pageSize-k.first].slots[id%pageSize].entry = nil
	k.waiting--
	k.leave(uint64(id) / pageSize)
}

// dropRun forgets a job that is known to hold GPUs.
func (k *known) dropRun(id cluster.JobID) {
	k.row[uint64(id)/pageSize-k.first].slots[id%pageSize].run = nil
	k.holding--
	k.leave(uint64(id) / pageSize)
}

// page is the one of a number, made if it is not there.
func (k *known) page(number uint64) *page {
	switch {
	case len(k.row) == 0:
		k.first, k.row = number, append(k.row, nil)
	case number < k.first:
		longer := make([]*page, k.first-number+uint64(len(k.row)))
		copy(longer[k.first-number:], k.row)
		k.first, k.row = number, longer
	}
	for number-k.first >= uint64(len(k.row)) {
		k.row = append(k.row, nil)
	}
	at := &k.row[number-k.first]
	if *at == nil {
		if *at, k.spare = k.spare, nil; *at == nil {
			*at = &page{}
		}
	}
	return *at
}

// leave notes that a page has one less, and drops it if that was its last.
func (k *known) leave(number uint64) {
	at := &k.row[number-k.first]
	if (*at).jobs--; (*at).jobs > 0 {
		return
	}
	k.spare, *at = *at, nil
	for len(k.row) > 0 && k.row[0] == nil {
		k.first, k.row = k.first+1, k.row[1:]
	}
	for n := len(k.row); n > 0 && k.row[n-1] == nil; n-- {
		k.row = k.row[:n-1]
	}
}

// entries are all jobs that wait, by id. None may come or go meanwhile.
func (k *known) entries() func(func(*entry) bool) {
	return func(yield func(*entry) bool) {
		for s := range k.all() {
			if s.entry != nil && !yield(s.entry) {
				return
			}
		}
	}
}

// runs are all jobs that hold GPUs, by id. None may come or go meanwhile.
func (k *known) runs() func(func(*run) bool) {
	return func(yield func(*run) bool) {
		for s := range k.all() {
			if s.run != nil && !yield(s.run) {
				return
			}
		}
	}
}

// all is what is known of any job, by id.
func (k *known) all() func(func(slot) bool) {
	return func(yield func(slot) bool) {
		for _, p := range k.row {
			for i := 0; p != nil && i < pageSize; i++ {
				if !yield(p.slots[i]) {
					return
				}
			}
		}
	}
}
