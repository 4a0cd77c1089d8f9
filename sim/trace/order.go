package trace

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"time"
)

// Window is how many jobs Ordered looks ahead. A file with fewer may have them in any order. It bounds memory: some
// 200 bytes for each job.
const Window = 1 << 16

// Ordered sorts the jobs of a source by submission, keeping the order of those of one moment, as far as a window of
// jobs allows: a job that was submitted before one that has been given already is an error that says what to do.
func Ordered(src Source, window int) Source { return &ordered{Source: src, window: max(window, 1)} }

// ordered keeps the jobs that were read and not yet given, sorted. Files are sorted but for stragglers, so that
// inserting a job moves few others.
type ordered struct {
	Source
	window int
	ahead  []*Job // those before head have been given
	head   int
	block  []Job // where the next ones are kept: made many at a time
	end    error // of the source: io.EOF or worse
	whole  bool  // end is io.EOF: nothing was wrong
	last   time.Duration
}

// maxBlock is how many jobs are kept in one piece: as long as one of them is ahead, all of them take memory.
const maxBlock = 64

// Next implements Source.
func (o *ordered) Next(j *Job) error {
	for o.end == nil && len(o.ahead)-o.head < o.window {
		o.take()
	}
	switch {
	case o.end != nil && !o.whole:
		return o.end // told at once: what follows is of no use
	case o.head == len(o.ahead):
		return o.end
	}
	*j = *o.ahead[o.head]
	o.ahead[o.head] = nil
	if o.head++; o.head >= o.window { // the given ones are as many as those ahead: worth a move
		o.ahead = slices.Delete(o.ahead, 0, o.head)
		o.head = 0
	}
	o.last = j.Submit
	return nil
}

// take reads a job of the source, and puts it where it belongs.
func (o *ordered) take() {
	n := len(o.block)
	if n == cap(o.block) {
		n, o.block = 0, make([]Job, 0, min(o.window, maxBlock))
	}
	j := &o.block[:n+1][n]
	if o.end = o.Source.Next(j); o.end == nil {
		o.block = o.block[:n+1]
		o.end = o.insert(j)
	}
	o.whole = errors.Is(o.end, io.EOF)
}

// Left is how many jobs are yet to come, or -1 while the end of the file is not in sight.
func (o *ordered) Left() int {
	if !o.whole {
		return -1
	}
	return len(o.ahead) - o.head
}

func (o *ordered) insert(j *Job) error {
	if j.Submit < o.last {
		return fmt.Errorf("job %s was submitted at %s, before another that stands more than %d rows above it (%s): sort the file by submission, or use --sort, which does so in memory",
			j.ID, inSeconds(j.Submit), o.window, inSeconds(o.last))
	}
	at := len(o.ahead)
	if at == cap(o.ahead) {
		o.ahead = slices.Grow(o.ahead, max(at, maxBlock)) // append alone would move a long list three times as often
	}
	if at == o.head || o.ahead[at-1].Submit <= j.Submit { // as nearly always
		o.ahead = append(o.ahead, j)
		return nil
	}
	at = o.head + sort.Search(at-o.head, func(i int) bool { return o.ahead[o.head+i].Submit > j.Submit })
	o.ahead = slices.Insert(o.ahead, at, j)
	return nil
}

func inSeconds(d time.Duration) string { return fmt.Sprintf("%.10g s", d.Seconds()) }

// Sorted reads all jobs of a source, closes it, and gives them by submission. It needs the memory for all of them.
func Sorted(src Source) (Source, error) {
	l := &list{}
	for {
		var j Job
		err := src.Next(&j)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, src.Close())
		}
		l.jobs = append(l.jobs, j)
	}
	l.skipped = src.Skipped()
	slices.SortStableFunc(l.jobs, func(a, b Job) int { return cmp.Compare(a.Submit, b.Submit) })
	return l, src.Close()
}
