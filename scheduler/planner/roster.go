package planner

import (
	"slices"

	"github.com/gangline/gangline/scheduler/cluster"
)

// roster is the candidates of the last market being made into those of the next
// one, in place: both are by job id, and most jobs are in both.
type roster struct {
	list []candidate
	done int // of these, the first are the next market's
	from int // and from here on the last one's that are still to come
}

// find returns the candidate of the last market for this version of a job, or
// nil. Jobs must be asked for by id. It is valid until the next call.
func (o *roster) find(j *cluster.Job) *candidate {
	for o.from < len(o.list) && o.list[o.from].job.ID < j.ID {
		o.from++
	}
	if o.from < len(o.list) {
		if c := &o.list[o.from]; c.job == j && c.r.job == j {
			return c
		}
	}
	return nil
}

// keep takes over what find has found.
func (o *roster) keep() *candidate {
	if o.done < o.from {
		o.list[o.done] = o.list[o.from]
	}
	o.done, o.from = o.done+1, o.from+1
	return &o.list[o.done-1]
}

// add takes in one that find has not found.
func (o *roster) add(c *candidate) *candidate {
	switch {
	case o.done < o.from:
		o.list[o.done] = *c
	case o.from == len(o.list):
		o.list = append(o.list, *c)
		o.from++
	default: // more have come than gone: make room for some
		gap := len(o.list)/16 + 16
		o.list = slices.Insert(o.list, o.from, make([]candidate, gap)...)
		o.from += gap
		o.list[o.done] = *c
	}
	o.done++
	return &o.list[o.done-1]
}
