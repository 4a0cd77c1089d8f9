package cluster

import (
	"fmt"
	"slices"
)

// A worker asks for a new formation when its ring broke, and names whom it lost. Most often that worker's end is on its way here, and makes the
// new formation. If all ask, and none has ended, a link between two of them broke: they form anew as they are. If all but those
// that are named ask, these hang, or are cut off: the gang goes on without them. Whom they lost workers' agents tell only after a while, in
// which who is able to has asked. A worker that waits for one which nobody has named, since it hung while another was lost, in the end names all that are absent.

// NamesAbsent is Worker.Names of one that has waited so long for the others that it goes on without those who do not come, whoever they are.
const NamesAbsent = -1

// asks takes what a worker asks for, and reports whether that is news.
func (w *Worker) asks(r *WorkerReport) bool {
	if r.Asks < w.Asks || (r.Asks == w.Asks && (w.Names != 0 || r.Names == 0)) {
		return false
	}
	w.Asks, w.Names = r.Asks, r.Names
	return true
}

// answer forms the gang anew if its workers ask for it. It returns the nodes that it changed.
func (s *State) answer(j *Job) []Change {
	if j.Spec.OnFailure != FailureShrinks || j.State != Running {
		return nil
	}
	var asked, silent []int
	for i := range j.Workers {
		switch w := &j.Workers[i]; {
		case !w.member():
		case w.Asks > j.Formation():
			asked = append(asked, i)
		default:
			silent = append(silent, i)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	if len(silent) == 0 {
		j.Reformed++
		j.Reason = describeForm(j, "its ring broke, though all are there; ", 0)
		return nil
	}
	named := map[int]bool{}
	if slices.ContainsFunc(asked, func(i int) bool { return j.Workers[i].Names == NamesAbsent }) {
		asked = nil // it waited for a while after it had asked: who could has done so too
		for _, i := range silent {
			named[i] = true
		}
	}
	for _, i := range asked {
		rank := int(j.Workers[i].Names) - 1 // the index too
		if !slices.Contains(silent, rank) {
			return nil // who is named asks too, or will be heard of
		}
		named[rank] = true
	}
	if len(named) < len(silent) {
		return nil // some may only be busy: they ask when they notice
	}
	var changes []Change
	for _, i := range silent {
		if named[i] {
			changes = append(changes, s.giveUp(j, &j.Workers[i]))
		}
	}
	if !s.goOn(j, true) {
		s.beginStop(j, StopFailure, fmt.Sprintf("%d workers do not answer the others", len(changes)))
	}
	return changes
}

// giveUp counts a worker as lost that may still run: its GPUs are nobody else's until its end is reported.
func (s *State) giveUp(j *Job, w *Worker) Change {
	n := *s.Node(w.Node)
	if len(n.Stale) < maxStaleRefs {
		n.Stale = append(slices.Clone(n.Stale), WorkerRef{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, GPUs: w.GPUs})
	}
	n.ChangedAt = s.now
	s.putNode(&n)
	w.State, w.Message = WorkerLost, "does not answer: all others lost it, and it has not asked for a new ring"
	return Change{Node: n.ID}
}
