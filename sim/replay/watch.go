package replay

import (
	"errors"
	"time"

	"github.com/gangline/gangline/sim/trace"
)

// Watch is what a replay tells while it runs. It changes nothing: a replay that is watched gives the same report. Each
// function may be nil, and then costs nothing. They are called from the replay's own goroutine; none may keep or change
// what it is given. Times are virtual, since the trace's start. With partitions each part tells of itself, and virtual
// time may begin anew with each part.
type Watch struct {
	// Progress is called after every moment and must be fast. If it returns false the replay ends there, and its report
	// says that it is partial.
	Progress func(*Progress) bool
	// Outcome is called for each job, when it has ended or was refused; in the end for those that had not ended. An
	// error ends the replay.
	Outcome func(*Outcome) error
	// Levels is called with what a queue had and waited for, for each span of time in which that did not change.
	Levels func(*Levels)
	// Hold is called when an epoch of a job has given its GPUs back.
	Hold func(*Hold)
	// Incident is called when something has failed.
	Incident func(*Incident)
	// Decision is called for each start and stop that the scheduler decided, in order.
	Decision func(*Decision)
	// Samplers are shown the cluster at equal distances of time.
	Samplers []Sampler
}

// Progress is how far a replay is.
type Progress struct {
	Part      string // the queue, with partitions
	Now       time.Duration
	Submitted int // jobs, of all parts; refused ones too
	Ended     int // of these, for good
	Total     int // jobs of the trace; 0: not known

	eyes *observer
}

// Job says where a job of the trace, by its row, is now: "Pending", "Running" and so on, and the scheduler's reason. It
// is false if the job has not come yet or has ended.
func (p *Progress) Job(row int) (state, reason string, ok bool) {
	for a := range p.eyes.w.jobs.All() {
		if a.row != row {
			continue
		}
		if j := p.eyes.w.state.Job(a.id); j != nil {
			return j.State.String(), p.eyes.named(j.Reason), true
		}
	}
	return "", "", false
}

// Outcome is what became of a job.
type Outcome struct {
	Row         int // among the trace's jobs by submission, from 0
	Job         *trace.Job
	State       string        // finished, failed, unfinished or refused
	Started     time.Duration // its first start; -1: never
	Ended       time.Duration // -1: not
	Now         time.Duration // when this is told: of unfinished jobs, the end of the replay
	Preemptions int
	Fairness    float64 // its finish-time fairness, see Report; 0: it has not finished
}

// States of an Outcome.
const (
	Finished   = "finished"
	FailedJob  = "failed"
	Unfinished = "unfinished"
	RefusedJob = "refused"
)

// JCT is the time from submission to the end, 0 if it has not ended.
func (o *Outcome) JCT() time.Duration {
	if o.Ended < 0 {
		return 0
	}
	return o.Ended - o.Job.Submit
}

// Wait is what of JCT is not service.
func (o *Outcome) Wait() time.Duration {
	if o.Ended < 0 {
		return 0
	}
	return o.JCT() - o.Job.Length
}

// Levels are what a queue had and waited for in a span of time. GPUs are in thousandths.
type Levels struct {
	Part, Queue       string
	From, To          time.Duration
	Pending, Running  int
	PendingGPUs, Held int64
	Started           int           // jobs whose first start was at From
	StartedWait       time.Duration // what these had waited, in all
}

// Hold is what an epoch of a job held.
type Hold struct {
	Part     string
	Row      int
	Job      *trace.Job
	Epoch    int
	From, To time.Duration
	Places   []Spot
	Why      string // it gave them back: finished, preempted, failed...
}

// Spot is a part of a gang: GPUs of a node.
type Spot struct {
	Node string
	GPUs []int // their numbers on the node
}

// Incident is something that failed, or came back.
type Incident struct {
	Part string
	At   time.Duration
	Kind string // see below
	Node string
	Row  int    // of the job; -1: none
	Job  string // its id
	Text string
}

// Kinds of Incident.
const (
	NodeLost = "node lost"
	NodeBack = "node back"
	JobFault = "job failed" // an epoch of it
)

// Decision is a start or a stop that the scheduler decided.
type Decision struct {
	Part   string
	At     time.Duration
	Row    int
	Job    *trace.Job
	Stop   bool
	Reason string // of a stop
	Places []Spot
}

// Sampler is shown the cluster at equal distances of time.
type Sampler struct {
	Every time.Duration // at first; above 0
	// Take gets the sample and returns the distance to the next one (0: as before). An error ends the replay.
	Take func(*Sample) (every time.Duration, err error)
}

// Sample is the cluster at one moment.
type Sample struct {
	Part       string
	At         time.Duration
	All        QueueSample
	Queues     []QueueSample // those that have had jobs, by name
	GPUs       int64         // of nodes that are there
	Fragmented float64       // of these GPUs, the part that is free and of no use to the jobs seen so far, on average: FGD's measure
}

// QueueSample is a queue at one moment. GPUs are in thousandths.
type QueueSample struct {
	Queue             string
	Pending, Running  int
	PendingGPUs, Held int64
	AvgAge            time.Duration // how long those that wait have waited, on average
}

// Watches makes one Watch of several. Nil ones are left out.
func Watches(all ...*Watch) *Watch {
	out := &Watch{}
	for _, w := range all {
		if w == nil {
			continue
		}
		out.Progress = both(out.Progress, w.Progress, func(a, b bool) bool { return a && b })
		out.Outcome = both(out.Outcome, w.Outcome, func(a, b error) error { return errors.Join(a, b) })
		out.Levels = each2(out.Levels, w.Levels)
		out.Hold = each2(out.Hold, w.Hold)
		out.Incident = each2(out.Incident, w.Incident)
		out.Decision = each2(out.Decision, w.Decision)
		out.Samplers = append(out.Samplers, w.Samplers...)
	}
	return out
}

// each2 calls two functions, where there are two.
func each2[T any](a, b func(*T)) func(*T) {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	return func(x *T) {
		a(x)
		b(x)
	}
}

// both calls two functions, where there are two, and joins what they say.
func both[T, R any](a, b func(*T) R, join func(R, R) R) func(*T) R {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	return func(x *T) R {
		first := a(x)
		return join(first, b(x))
	}
}
