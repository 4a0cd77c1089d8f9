package replay

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gangline/gangline/sim/trace"
)

// Trace is a workload and the cluster that it is to run on.
type Trace struct {
	// Open begins the workload. It is called more than once where something must be known of the whole workload before
	// the first job comes: with quotas twice, with partitions once and for each queue.
	Open  func() (trace.Source, error)
	Nodes []trace.Node
}

// InMemory makes a trace of jobs in memory, which must be by submission.
func InMemory(jobs []trace.Job, nodes []trace.Node) *Trace {
	return &Trace{Open: func() (trace.Source, error) { return trace.Slice(jobs), nil }, Nodes: nodes}
}

// arrival is a job and which one of the trace's it is.
type arrival struct {
	row int // among jobs with GPUs, from 0
	job trace.Job
}

// feed gives the jobs with GPUs of a source, or those of one queue, all of one moment at a time. It reads one job ahead,
// so that it knows the last one when it gives it.
type feed struct {
	src     trace.Source
	queue   string // empty: all
	ahead   arrival
	end     error // why ahead is not a job: io.EOF or worse
	rows    int   // jobs with GPUs that were read
	without int   // jobs without
	jobs    []arrival
}

func newFeed(tr *Trace, queue string) (*feed, error) {
	src, err := tr.Open()
	if err != nil {
		return nil, err
	}
	f := &feed{src: src, queue: queue}
	f.read()
	return f, nil
}

// read takes the next job that is wanted.
func (f *feed) read() {
	j := &f.ahead.job
	last := j.Submit
	for {
		if f.end = f.src.Next(j); f.end != nil {
			return
		}
		switch {
		case j.Submit < last:
			f.end = fmt.Errorf("job %s comes at %s, after one of %s: jobs must be by submission", j.ID, j.Submit, last)
			return
		case j.GPUs == 0:
			f.without++
			continue
		}
		f.rows++
		if f.queue == "" || j.Queue == f.queue {
			f.ahead.row = f.rows - 1
			return
		}
	}
}

// moment returns the jobs that come next, all at one time; the list is reused. It returns io.EOF if none comes.
func (f *feed) moment() (at time.Duration, jobs []arrival, err error) {
	f.jobs = f.jobs[:0]
	at = f.ahead.job.Submit
	for f.end == nil && f.ahead.job.Submit == at {
		f.jobs = append(f.jobs, f.ahead)
		f.read()
	}
	if len(f.jobs) == 0 || (f.end != nil && !errors.Is(f.end, io.EOF)) {
		return at, nil, f.end
	}
	return at, f.jobs, nil
}

// last tells that no job comes any more.
func (f *feed) last() bool { return errors.Is(f.end, io.EOF) }

// total is how many jobs with GPUs the trace has, or 0 if that is not known yet.
func (f *feed) total() int {
	known, ok := f.src.(interface{ Left() int })
	if !ok || known.Left() < 0 {
		return 0
	}
	return f.rows + known.Left()
}
