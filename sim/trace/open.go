package trace

import (
	"errors"
	"fmt"
	"time"
)

// Options are how a file of jobs is read.
type Options struct {
	SkipBad   bool                     // malformed rows are passed over and counted, not told
	Sort      bool                     // all jobs are read into memory and sorted; else Ordered has a Window of them
	Drop      []string                 // queues whose jobs are left out
	Estimates map[string]time.Duration // guesses of some jobs' lengths, by job id; see Guessed
	Format    Format                   // of the file; empty: FormatAuto
	Zone      *time.Location           // of times that name none, which change with it only where its clocks do; nil: UTC
	Queue     string                   // of sacct: the column that names a job's queue; empty: Partition, or else Account
	Limits    bool                     // of sacct: guesses are the jobs' time limits
	Told      *Format                  // is set to the format that the file is read as; nil: nobody asks
	PAIJobs   string                   // of pai: a file with pai_job_table, for users and submission times; empty: none
	Read      *int64                   // how many bytes of the file were read, for who shows how far it is; nil: nobody
}

// OpenJobs opens a file of jobs, gzipped or not, as a source by submission. Times of the clock become times from the
// first job with GPUs. Jobs without GPUs are left out and count as skipped, as do those that never ran or have not
// ended. A malformed row is an error of Next that says where it is and what is expected, with others like it.
func OpenJobs(path string, opt Options) (Source, error) {
	f, err := openText(path, opt.Read)
	if err != nil {
		return nil, err
	}
	format := opt.Format
	if format == "" || format == FormatAuto {
		format, err = f.jobFormat()
	}
	src := Source(nil)
	if err == nil {
		err = opt.suits(format)
	}
	if opt.Told != nil {
		*opt.Told = format
	}
	if err == nil {
		src, err = openFormat(f, format, &opt)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	src = Guessed(&onlyGPUs{Source: Without(src, opt.Drop...)}, opt.Estimates)
	if opt.Sort {
		src, err = Sorted(src)
	} else {
		src = Ordered(src, Window)
	}
	if format == FormatCSV || format == FormatGangline || err != nil {
		return src, err
	}
	return &fromFirst{Source: src}, nil
}

// suits returns an error if an option is for another format.
func (o *Options) suits(format Format) error {
	switch {
	case (o.Queue != "" || o.Limits) && format != FormatSacct:
		return fmt.Errorf("the column of queues and time limits as guesses are for sacct, the file is read as %s", format)
	case o.PAIJobs != "" && format != FormatPAI:
		return fmt.Errorf("%s, a table of PAI's jobs, is for a table of PAI's tasks, the file is read as %s", o.PAIJobs, format)
	}
	return nil
}

// fromFirst gives the jobs of a source by submission times from the first one's.
type fromFirst struct {
	Source
	first time.Duration
	begun bool
}

// Next implements Source.
func (s *fromFirst) Next(j *Job) error {
	if err := s.Source.Next(j); err != nil {
		return err
	}
	if !s.begun {
		s.first, s.begun = j.Submit, true
	}
	if j.Submit -= s.first; j.Submit > MaxSeconds*time.Second {
		return fmt.Errorf("job %s was submitted %s after the first one: more than %s", j.ID, inSeconds(j.Submit), inSeconds(MaxSeconds*time.Second))
	}
	return nil
}

// Left is as the source has it.
func (s *fromFirst) Left() int {
	if known, ok := s.Source.(interface{ Left() int }); ok {
		return known.Left()
	}
	return -1
}
