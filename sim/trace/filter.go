package trace

import (
	"slices"
	"time"
)

// Without leaves out the jobs of some queues.
func Without(src Source, queues ...string) Source {
	if len(queues) == 0 {
		return src
	}
	return &without{src, queues}
}

type without struct {
	Source
	queues []string
}

// Next implements Source.
func (w *without) Next() (Job, error) {
	for {
		j, err := w.Source.Next()
		if err != nil || !slices.Contains(w.queues, j.Queue) {
			return j, err
		}
	}
}

// Guessed sets the Guess of the jobs that some estimates know, by job id. Others keep theirs, which is the exact length
// if the source knows no better.
func Guessed(src Source, estimates map[string]time.Duration) Source {
	return &guessed{src, estimates}
}

type guessed struct {
	Source
	estimates map[string]time.Duration
}

// Next implements Source.
func (g *guessed) Next() (Job, error) {
	j, err := g.Source.Next()
	if e, ok := g.estimates[j.ID]; ok && err == nil {
		j.Guess = e
	}
	return j, err
}

// onlyGPUs leaves out the jobs without GPUs, which a replay does not have, and counts them as skipped.
type onlyGPUs struct {
	Source
	without int
}

// Next implements Source.
func (o *onlyGPUs) Next() (Job, error) {
	for {
		j, err := o.Source.Next()
		if err != nil || j.GPUs > 0 {
			return j, err
		}
		o.without++
	}
}

// Skipped implements Source.
func (o *onlyGPUs) Skipped() int { return o.without + o.Source.Skipped() }
