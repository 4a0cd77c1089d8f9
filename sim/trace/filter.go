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
func (w *without) Next(j *Job) error {
	for {
		if err := w.Source.Next(j); err != nil || !slices.Contains(w.queues, j.Queue) {
			return err
		}
	}
}

// Guessed sets the Guess of the jobs that some estimates know, by job id. Others keep theirs, which is the exact length
// if the source knows no better.
func Guessed(src Source, estimates map[string]time.Duration) Source {
	if len(estimates) == 0 {
		return src
	}
	return &guessed{src, estimates}
}

type guessed struct {
	Source
	estimates map[string]time.Duration
}

// Next implements Source.
func (g *guessed) Next(j *Job) error {
	if err := g.Source.Next(j); err != nil {
		return err
	}
	if e, ok := g.estimates[j.ID]; ok {
		j.Guess = e
	}
	return nil
}

// onlyGPUs leaves out the jobs without GPUs, which a replay does not have, and counts them as skipped.
type onlyGPUs struct {
	Source
	without int
}

// Next implements Source.
func (o *onlyGPUs) Next(j *Job) error {
	for {
		if err := o.Source.Next(j); err != nil || j.GPUs > 0 {
			return err
		}
		o.without++
	}
}

// Skipped implements Source.
func (o *onlyGPUs) Skipped() int { return o.without + o.Source.Skipped() }
