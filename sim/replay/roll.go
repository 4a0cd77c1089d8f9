package replay

import "github.com/gangline/gangline/scheduler/cluster"

// roll finds the jobs that have not ended by their numbers. The state gives these out one after another, so that a list
// of pages does what a map would; a page is let go with the last of its jobs.
type roll struct {
	pages []*page // the first holds the jobs 0..pageJobs-1
	count int
}

const pageJobs = 256

type page struct {
	jobs  [pageJobs]*attempt
	count int
}

// get returns a job, or nil if it has ended.
func (r *roll) get(id cluster.JobID) *attempt {
	if at := int(id / pageJobs); at < len(r.pages) && r.pages[at] != nil { //nolint:gosec // counts jobs
		return r.pages[at].jobs[id%pageJobs]
	}
	return nil
}

// add takes in a job that is not there.
func (r *roll) add(a *attempt) {
	at := int(a.id / pageJobs) //nolint:gosec // counts jobs
	for len(r.pages) <= at {
		r.pages = append(r.pages, nil)
	}
	if r.pages[at] == nil {
		r.pages[at] = &page{}
	}
	r.pages[at].jobs[a.id%pageJobs] = a
	r.pages[at].count++
	r.count++
}

// drop takes out a job that is there.
func (r *roll) drop(id cluster.JobID) {
	at := id / pageJobs
	p := r.pages[at]
	p.jobs[id%pageJobs] = nil
	r.count--
	if p.count--; p.count == 0 {
		r.pages[at] = nil
	}
}

// all are the jobs in order.
func (r *roll) all() []*attempt {
	out := make([]*attempt, 0, r.count)
	for _, p := range r.pages {
		if p == nil {
			continue
		}
		for _, a := range p.jobs {
			if a != nil {
				out = append(out, a)
			}
		}
	}
	return out
}
