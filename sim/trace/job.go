package trace

import (
	"io"
	"time"
)

// Job is one row of a trace. Its times are virtual, from the trace's start.
type Job struct {
	ID     string
	Submit time.Duration // at least 0
	Length time.Duration // service time with the GPUs it asks for, at least 0, without waiting
	GPUs   int32         // of the whole gang; 0: it needs none, and a replay leaves it out
	Milli  int32         // of each GPU, 1..1000; below 1000 GPUs is 1
	Types  []string      // acceptable GPU types, preferred first; empty: any. Shared between jobs: never edited
	CPU    int64         // thousandths of a CPU, for the whole job; 0: not known
	Mem    int64         // bytes, for the whole job; 0: not known
	User   string
	Queue  string        // never empty
	Guess  time.Duration // what an estimator made of Length, see Guessed; may be nonsense, as guesses are
}

// Node is one machine of a trace's cluster.
type Node struct {
	Name string
	GPUs int32
	Type string // never empty
	CPU  int64  // thousandths; 0: not known, and then no job is kept out by it
	Mem  int64  // bytes; 0: not known, likewise
	Rack string
}

// Source gives the jobs of a workload one by one, by submission; those of one moment in the order of the file.
type Source interface {
	// Next sets *j to the next job, all of it, or returns io.EOF after the last. After any other error the source is of
	// no more use; with an error, what *j holds means nothing. A job is written to its place, and not returned, since it
	// goes through several sources, of which each would copy it.
	Next(j *Job) error
	// Skipped is how many rows were passed over until now: malformed ones, if that was asked for.
	Skipped() int
	// Close ends the source. It may be called before the last job was taken.
	Close() error
}

// Capacity is the number of GPUs of some nodes.
func Capacity(nodes []Node) int64 {
	n := int64(0)
	for i := range nodes {
		n += int64(nodes[i].GPUs)
	}
	return n
}

// Slice makes a source of jobs in memory. Next returns them in the order of the list.
func Slice(jobs []Job) Source { return &list{jobs: jobs} }

type list struct {
	jobs    []Job
	next    int
	skipped int
}

// Next implements Source.
func (l *list) Next(j *Job) error {
	if l.next == len(l.jobs) {
		return io.EOF
	}
	*j = l.jobs[l.next]
	l.next++
	return nil
}

// Skipped implements Source.
func (l *list) Skipped() int { return l.skipped }

// Close implements Source.
func (l *list) Close() error { return nil }

// Left is how many jobs are yet to come.
func (l *list) Left() int { return len(l.jobs) - l.next }
