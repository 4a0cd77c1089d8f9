package trace

import (
	"errors"
	"time"
)

// Options are how a file of jobs is read.
type Options struct {
	SkipBad   bool                     // malformed rows are passed over and counted, not told
	Sort      bool                     // all jobs are read into memory and sorted; else Ordered has a Window of them
	Drop      []string                 // queues whose jobs are left out
	Estimates map[string]time.Duration // guesses of some jobs' lengths, by job id; see Guessed
	Read      *int64                   // how many bytes of the file were read, for who shows how far it is; nil: nobody
}

// OpenJobs opens a file of jobs, gzipped or not, as a source by submission. Jobs without GPUs are left out and count as
// skipped. A malformed row is an error of Next that
// says where it is and what is expected, with others like it.
func OpenJobs(path string, opt Options) (Source, error) {
	f, err := openText(path, opt.Read)
	if err != nil {
		return nil, err
	}
	src, err := openCSV(f, opt.SkipBad)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	src = Guessed(&onlyGPUs{Source: Without(src, opt.Drop...)}, opt.Estimates)
	if opt.Sort {
		return Sorted(src)
	}
	return Ordered(src, Window), nil
}
