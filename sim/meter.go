package sim

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// meter adds up what the report tells, as the state changes.
type meter struct {
	world       *world
	heldGPU     float64 // seconds of GPUs held
	lostGPU     float64 // seconds of work that had to be done again
	usefulGPU   float64 // seconds of work of jobs that succeeded
	preemptions int
	requeues    int
	retries     int
	epochs      int
	lastFinish  cluster.Time
}

// changed takes in one job's new version. Times are the world's, since a leader's clock may be wrong.
func (m *meter) changed(j *job, was cluster.JobState, now *cluster.Job) {
	if was == now.State {
		return
	}
	t := m.world.clock.now
	if was == 0 {
		j.submitted = t
	}
	if now.State == cluster.Starting {
		j.since = t
		m.epochs++
		if j.started == 0 {
			j.started = t
		}
	}
	if was.Holding() && !now.State.Holding() {
		held := t.Sub(j.since)
		j.held += held
		m.heldGPU += held.Seconds() * j.gpus(now)
	}
	if was.Holding() && now.State == cluster.Pending {
		m.again(j, now)
	}
	if now.State.Final() {
		j.finished = t
		m.lastFinish = t
		if now.State == cluster.Succeeded {
			m.usefulGPU += j.service.Seconds() * j.gpus(now)
		}
	}
}

// again counts an epoch that ended without the job's end: what was not saved is lost.
func (m *meter) again(j *job, now *cluster.Job) {
	switch {
	case now.Stop == cluster.StopPreempt:
		m.preemptions++
	case now.NotBefore > 0 && now.Stop == cluster.StopFailure && now.Blamed:
		m.retries++
	default:
		m.requeues++
	}
	worked := time.Duration(0)
	if g := m.world.machine.gangs[gangKey{uint64(now.ID), uint64(now.Epoch)}]; g != nil {
		worked = g.worked()
	} else if j.workedIn == uint64(now.Epoch) {
		worked = j.worked
	}
	saved := time.Duration(j.step) * time.Millisecond
	m.lostGPU += max(worked-saved, 0).Seconds() * j.gpus(now)
}

// gpus is how many GPUs a job held in its last epoch.
func (j *job) gpus(now *cluster.Job) float64 {
	return float64(now.Held()) * float64(j.spec.Share()) / cluster.WholeGPU
}

// report puts the measures together.
func (w *world) report() Report {
	m := &w.meter
	r := Report{
		Seed: w.script.Seed, Nodes: len(w.agents), GPUs: gpusOf(w.machines, ""), Jobs: len(w.clients.jobs),
		Preemptions: m.preemptions, Requeues: m.requeues, Retries: m.retries, Epochs: m.epochs, LostGPU: m.lostGPU,
		Entries: w.servers.index, Commands: w.servers.commands, Events: w.clock.fired,
		FullChecks: w.checks.full, HashChecks: w.servers.compares, Restores: w.servers.restores,
		StateHash: hex64(w.servers.state().Hash()), Faults: w.faults, VirtualSeconds: w.clock.elapsed().Seconds(),
	}
	var jct, wait []float64
	for _, j := range w.clients.jobs {
		switch {
		case j.gone:
			r.Refused++
		case j.state == cluster.Succeeded:
			r.Succeeded++
			jct = append(jct, j.finished.Sub(j.submitted).Seconds())
		case j.state == cluster.Failed:
			r.Failed++
		case j.state == cluster.Cancelled:
			r.Cancelled++
		}
		if j.started != 0 {
			wait = append(wait, j.started.Sub(j.submitted).Seconds())
		}
	}
	r.Finished = r.Succeeded + r.Failed + r.Cancelled
	slices.Sort(jct)
	slices.Sort(wait)
	r.AvgJCT, r.P50JCT, r.P90JCT, r.P99JCT = mean(jct), quantile(jct, 0.5), quantile(jct, 0.9), quantile(jct, 0.99)
	r.AvgWait, r.P50Wait, r.P99Wait = mean(wait), quantile(wait, 0.5), quantile(wait, 0.99)
	if m.lastFinish > 0 {
		r.Makespan = m.lastFinish.Sub(genesis).Seconds()
		capacity := r.Makespan * float64(r.GPUs)
		r.GPUAllocation, r.GPUGoodput = m.heldGPU/capacity, m.usefulGPU/capacity
	}
	return r
}

func mean(sorted []float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	sum := 0.0
	for _, v := range sorted {
		sum += v
	}
	return sum / float64(len(sorted))
}

// quantile is the smallest value that at least a part q of the values does not exceed (the nearest rank).
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
