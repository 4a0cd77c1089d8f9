package replay

import (
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// samples takes what is due before a moment, from the state as it was until then.
func (e *observer) samples(until cluster.Time) {
	for i := range e.due {
		for genesis.Add(e.due[i]) < until {
			s := e.sample(e.due[i])
			every, err := e.watch.Samplers[i].Take(s)
			if err != nil {
				e.fail(err)
				e.due[i] = 1<<63 - 1 - time.Duration(genesis)
				break
			}
			if every > 0 {
				e.every[i] = every
			}
			e.due[i] += e.every[i] - e.due[i]%e.every[i]
		}
	}
}

func (e *observer) sample(at time.Duration) *Sample {
	s := &Sample{Part: e.part, At: at}
	for _, q := range e.order {
		l := &q.now
		x := QueueSample{Queue: l.Queue, Pending: l.Pending, Running: l.Running, PendingGPUs: l.PendingGPUs, Held: l.Held}
		if l.Pending > 0 {
			x.AvgAge = at - time.Duration(q.ageSum/int64(l.Pending))*time.Millisecond
		}
		s.All.AvgAge += time.Duration(int64(x.AvgAge) / 1e6 * int64(x.Pending)) // ms, so that the sum has room
		s.All.Pending += x.Pending
		s.All.Running += x.Running
		s.All.PendingGPUs += x.PendingGPUs
		s.All.Held += x.Held
		s.Queues = append(s.Queues, x)
	}
	if s.All.Pending > 0 {
		s.All.AvgAge = time.Duration(int64(s.All.AvgAge) / int64(s.All.Pending) * 1e6)
	}
	s.GPUs, s.Fragmented = e.frag.measure(&e.w.state)
	return s
}

// outcome tells what became of a job.
func (e *observer) outcome(a *attempt) {
	if e == nil {
		return
	}
	if a.refused || a.ended != 0 || a.failed != 0 {
		e.progress.Ended++
	}
	if e.watch.Outcome == nil {
		return
	}
	o := Outcome{Row: a.row, Job: &a.job, State: Unfinished, Started: -1, Ended: -1, Now: e.now(), Preemptions: int(a.stops), Fairness: a.rho}
	if a.first != 0 {
		o.Started = a.first.Sub(genesis)
	}
	switch {
	case a.refused:
		o.State = RefusedJob
	case a.ended != 0:
		o.State, o.Ended = Finished, a.ended.Sub(genesis)
	case a.failed != 0:
		o.State, o.Ended = FailedJob, a.failed.Sub(genesis)
	}
	if err := e.watch.Outcome(&o); err != nil {
		e.fail(err)
	}
}
