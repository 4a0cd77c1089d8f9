package planner

import (
	"github.com/gangline/gangline/scheduler/cluster"
)

// hold takes a job that holds GPUs; r is what the index knows of it, or nil.
func (x *Index) hold(r *run, j *cluster.Job) {
	if r != nil && r.planned {
		r.planned = false // the plan has come true; its use is counted already
		x.enroll(r)
	} else if r == nil {
		r = x.newRun()
		r.job = j
		x.jobs.addRun(j.ID, r)
		x.news = true
		r.gpuType, r.milli = x.state.HeldType(j), int64(j.Held())*int64(j.Spec.Share())
		r.shape, r.group = x.fleet.Shape(j.Spec), x.groupOf(x.tree.Queue(j.Spec.Queue), j.User)
		r.runs++
		x.count(r, j, 1)
		x.ask(r.shape, 1)
		x.enroll(r)
	}
	r.job = j
	r.outdate()
}

// runBatch is how many runs are made at a time: so few, since the last of them
// that is in use keeps all in memory.
const runBatch = 4

// maxSpareRuns is how many runs are kept for jobs to come.
const maxSpareRuns = 64

func (x *Index) newRun() *run {
	if last := len(x.spareRuns) - 1; last >= 0 {
		r := x.spareRuns[last]
		x.spareRuns = x.spareRuns[:last]
		return r
	}
	if len(x.runRoom) == 0 {
		x.runRoom = make([]run, runBatch)
	}
	r := &x.runRoom[0]
	x.runRoom = x.runRoom[1:]
	return r
}

// count adds what a job holds to what its queue uses, or takes it away.
func (x *Index) count(r *run, j *cluster.Job, sign int32) {
	switch {
	case !x.shared:
	case sign > 0:
		x.tree.Take(r.q, j.User, r.gpuType, r.milli)
	default:
		x.tree.Give(r.q, j.User, r.gpuType, r.milli)
	}
	if !j.Spec.Preemptible {
		x.countFirm(r.q, r.gpuType, int64(sign)*r.milli)
	}
	if j.Array != 0 && j.Spec.Array.Parallel > 0 {
		a := x.arrayOf(j.Array)
		a.holding += sign
		if sign < 0 {
			for _, l := range a.lanes {
				if l.pos < 0 && l.parked == nil && !l.held {
					x.addLane(l)
				}
			}
			if a.holding == 0 && len(a.lanes) == 0 {
				delete(x.arrays, j.Array)
			}
		}
	}
	if j.Spec.Preemptible {
		x.priorities[j.Spec.Priority] += sign
	}
	if j.Spec.Elastic() {
		x.elastic += int(sign)
	}
	x.requote(r.q)
}

// release forgets a job that holds nothing any more, and the run.
func (x *Index) release(r *run) {
	j := r.job
	x.news = true
	x.jobs.dropRun(j.ID)
	if !r.planned {
		x.strike(r)
	}
	r.runs--
	x.dropGroup(r.group)
	x.count(r, j, -1)
	x.ask(r.shape, -1)
	x.unpark(r.q, j.User, r.gpuType)
	if len(x.spareRuns) < maxSpareRuns {
		*r = run{}
		x.spareRuns = append(x.spareRuns, r)
	}
}

// planStart takes a job out of its lane and counts it as running, before the
// state shows it.
func (x *Index) planStart(e *entry, gpuType string, workers []cluster.Placement) {
	j, l := e.job, e.lane
	r := x.newRun()
	r.group, r.job, r.gpuType, r.shape, r.planned = l.group, j, gpuType, l.shape.Shape, true
	r.runs++
	x.jobs.startEntry(j.ID, r)
	x.dequeue(e) // it asks for what it asked for
	gpus := 0
	for i := range workers {
		gpus += len(workers[i].GPUs)
	}
	r.milli = int64(gpus) * int64(j.Spec.Share())
	x.count(r, j, 1)
	x.startedBy(r)
}
