package cluster

import "fmt"

// A gang that may shrink (FailureShrinks) goes on without a worker that has ended: its epoch, its other workers and what it holds stay, its
// formation grows by one, and its workers form a new ring of those that are left. The GPUs of the worker stay the gang's: another worker
// takes them over and joins, or they are idle until the epoch ends.

// goOn lets a gang go on without workers that have just ended, if it may. Itself says that one of them failed of itself.
func (s *State) goOn(j *Job, itself bool) bool {
	if j.Spec.OnFailure != FailureShrinks || j.State != Running {
		return false
	}
	var gone []int
	left := int32(0)
	for i := range j.Workers {
		w := &j.Workers[i]
		switch {
		case w.member():
			left += int32(len(w.GPUs)) //nolint:gosec // a GPU or a few
		case w.failed() && !w.Left:
			gone = append(gone, i)
		}
	}
	if left < j.Spec.Least() {
		return false
	}
	again := itself && j.Failures < j.Spec.Retries
	if again {
		j.Failures++
	}
	what, joins := "", 0
	for _, i := range gone {
		w := &j.Workers[i]
		w.Left = true
		if w.Joined != waitsToJoin {
			j.Reformed++
		}
		what = s.describeEnd(w)
		if n := s.Node(w.Node); again && n != nil && n.State == NodeReady && n.Drain == nil {
			j.replace(i)
			joins++
		}
	}
	j.Reason = describeForm(j, fmt.Sprintf("%s; ", what), joins)
	return true
}

// replace lets a new worker, of a rank that no other had, take over the GPUs of one that has ended.
func (j *Job) replace(i int) {
	w := &j.Workers[i]
	next := Worker{Rank: Rank(len(j.Workers)), Node: w.Node, GPUs: w.GPUs, State: WorkerAssigned, Joined: waitsToJoin} //nolint:gosec // bounded by retries
	w.GPUs = nil
	j.Workers = append(j.Workers, next)
}

// arrive makes a worker that has come to where the others meet one of them.
func (j *Job) arrive(w *Worker) {
	j.Reformed++
	w.Joined = j.Formation()
	j.Reason = describeForm(j, fmt.Sprintf("rank %d joins; ", w.Rank), 0)
}

// describeForm says how many workers a gang has now.
func describeForm(j *Job, why string, joins int) string {
	members := 0
	for i := range j.Workers {
		if j.Workers[i].member() {
			members++
		}
	}
	text := why + "goes on with " + plural(members, "worker")
	if joins > 0 {
		text += ", " + plural(joins, "other") + " will join"
	}
	return cut(text)
}

// dismiss asks workers that joined, or wait to, to stop once those that were there from the start have all ended and one of them had done its
// work: nobody is left to form a ring with.
func (s *State) dismiss(j *Job) {
	if j.State != Running || j.Reformed == 0 && !j.joined() {
		return
	}
	done, live := false, false
	for i := range j.Workers {
		w := &j.Workers[i]
		switch {
		case w.State.Ended():
			done = done || w.State == WorkerExited && !w.failed()
		case w.Joined == 0:
			return
		default:
			live = true
		}
	}
	if !done || !live {
		return
	}
	for i := range j.Workers {
		if w := &j.Workers[i]; !w.State.Ended() {
			w.Left = true
		}
	}
	s.beginStop(j, StopDone, "the job's work is done")
}

// joined reports whether one of the workers was not there from the start.
func (j *Job) joined() bool {
	for i := range j.Workers { // by hand: slices.ContainsFunc would copy each
		if j.Workers[i].Joined != 0 {
			return true
		}
	}
	return false
}
