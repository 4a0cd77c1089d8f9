package cluster

import "slices"

// turn is one report being taken in. The jobs that it changes are copied once
// each: a node may tell of many workers of one large gang. Where a worker has
// started, or ended as it should, and nobody else sees the job, it is edited.
type turn struct {
	s     *State
	node  NodeID
	stale bool   // workers that were given up may still run there
	jobs  []told // in the order of the report
}

// told is a job that a report changes.
type told struct {
	job    *Job
	edited bool // it is the state's own
	was    was  // then
}

// job returns what the turn has of a job, or the state's own.
func (t *turn) job(id JobID) (j *Job, at int) {
	for i := len(t.jobs) - 1; i >= 0; i-- {
		if t.jobs[i].job.ID == id {
			return t.jobs[i].job, i
		}
	}
	return t.s.Job(id), -1
}

// own returns a version of a job that may be written to. Plain: a worker has
// started, or ended as it should. Who follows the state takes two versions for
// one if they are at one place, so whatever makes a job stop makes a new one.
func (t *turn) own(j *Job, at int, plain bool) *Job {
	if at >= 0 && (plain || !t.jobs[at].edited) {
		return j
	}
	plain = plain && j.Reformed == 0 && j.Spec.OnFailure != FailureShrinks
	if plain && at < 0 {
		if _, mine := t.s.jobs.edit(t.s.mine(), uint64(j.ID)); mine {
			t.jobs = append(t.jobs, told{j, true, t.s.was(j)})
			return j
		}
	}
	own := *j
	own.Workers = slices.Clone(j.Workers)
	if at >= 0 {
		t.jobs[at] = told{job: &own}
	} else {
		t.jobs = append(t.jobs, told{job: &own})
	}
	return &own
}

// take takes in what is said of one worker.
func (t *turn) take(r *WorkerReport) []Change {
	s := t.s
	if t.stale && r.State.Ended() {
		if ch, was := s.clearStale(t.node, r); was {
			return ch
		}
	}
	j, at := t.job(r.Job)
	if j == nil || j.Epoch != r.Epoch || !j.State.Holding() || int(r.Rank) >= len(j.Workers) || r.Rank < 0 {
		return nil
	}
	w := &j.Workers[r.Rank]
	arrives := r.Arrived && r.State == WorkerRunning && w.Joined == waitsToJoin && j.State == Running
	asks := r.State == WorkerRunning && w.member() && j.State == Running && r.Asks > j.Formation()
	silence := r.Silence != 0 && r.State == WorkerRunning && w.member() && j.State == Running && j.Spec.OnFailure == FailureShrinks
	if w.Node != t.node || w.State.Ended() || (r.State <= w.State && !arrives && !asks && !silence) {
		return nil
	}
	j = t.own(j, at, !arrives && !asks && !silence && !r.failed())
	w = &j.Workers[r.Rank]
	w.State, w.ExitCode, w.Signal, w.PeerLost, w.Message = r.State, small[int16](r.ExitCode), small[int16](r.Signal), r.PeerLost, cut(r.Message)
	if r.Rank == 0 && r.Progress != nil {
		j.Progress = r.Progress
	}
	if arrives {
		j.arrive(w)
	}
	if silence {
		return s.hearSilence(j, w, r.Silence)
	}
	if asks && w.asks(r) {
		return s.answer(j)
	}
	if w.failed() {
		s.judgeFailure(j, w, r.Stopped)
	}
	return nil
}
