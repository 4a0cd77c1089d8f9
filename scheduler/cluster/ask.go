package cluster

import (
	"fmt"
	"slices"
)

// A worker asks for a new formation when its ring broke, and names whom it lost. Most often that worker's end is on its way here, and makes the
// new formation. If all ask, and none has ended, a link between two of them broke: they form anew as they are. If all but those
// that are named ask, these hang, or are cut off: the gang goes on without them. Whom they lost workers' agents tell only after a while, in
// which who is able to has asked. One that hangs while another is lost is named by nobody, but its process does not answer its agent either: it is given up as soon as
// all others ask. A worker that waits for one that lives and does not ask in the end names all that are absent.

// NamesAbsent is Worker.Names of one that has waited so long for the others that it goes on without those who do not come, whoever they are.
const NamesAbsent = -1

// asksNothing is Worker.Asks of one whose process does not answer its agent.
const asksNothing = -1

// Silence is what an agent says anew of whether a worker's process answers it; 0: nothing.
type Silence uint8

// The kinds of news.
const (
	FellSilent Silence = 1 // it did, and does no longer, though it has not ended
	SpokeAgain Silence = 2 // it does again
)

// Silent reports whether the worker's process lives and does not answer its agent.
func (w *Worker) Silent() bool { return w.Asks == asksNothing && w.member() }

// AwaitsSilent reports whether a member of the gang is silent: who waits for it at a rendezvous waits in vain.
func (j *Job) AwaitsSilent() bool {
	return slices.ContainsFunc(j.Workers, func(w Worker) bool { return w.Silent() })
}

// hearSilence takes the news that a worker is silent, or no longer. It returns the nodes that it changed.
func (s *State) hearSilence(j *Job, w *Worker, news Silence) []Change {
	if news == FellSilent {
		w.Asks, w.Names = asksNothing, 0
		return s.answer(j)
	}
	if !w.Silent() {
		return nil
	}
	w.Asks = 0
	for i := range j.Workers { // who asked because of it may do without; who still does says so again
		if o := &j.Workers[i]; o.Asks > j.Formation() {
			o.Asks, o.Names = 0, 0
		}
	}
	return nil
}

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
	var asked, absent []int
	lost := map[int]bool{} // of the absent
	for i := range j.Workers {
		switch w := &j.Workers[i]; {
		case !w.member():
		case w.Asks > j.Formation():
			asked = append(asked, i)
		default:
			absent = append(absent, i)
			if w.Silent() {
				lost[i] = true
			}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	if len(absent) == 0 {
		j.Reformed++
		j.Reason = describeForm(j, "its ring broke, though all are there; ", 0)
		return nil
	}
	if len(lost) < len(absent) && !j.allName(asked, absent, lost) {
		return nil // some may only be busy: they ask when they notice
	}
	var changes []Change
	for _, i := range absent {
		changes = append(changes, s.giveUp(j, &j.Workers[i]))
	}
	if !s.goOn(j, true) {
		s.beginStop(j, StopFailure, fmt.Sprintf("%d workers do not answer the others", len(changes)))
	}
	return changes
}

// allName adds whom those that asked name to the lost, and reports whether all that are absent are lost then.
func (j *Job) allName(asked, absent []int, lost map[int]bool) bool {
	if slices.ContainsFunc(asked, func(i int) bool { return j.Workers[i].Names == NamesAbsent }) {
		return true // it waited for a while after it had asked: who could has done so too
	}
	for _, i := range asked {
		rank := int(j.Workers[i].Names) - 1 // the index too
		if !slices.Contains(absent, rank) {
			return false // who is named asks too, or will be heard of
		}
		lost[rank] = true
	}
	return len(lost) == len(absent)
}

// giveUp counts a worker as lost that may still run: its GPUs are nobody else's until its end is reported.
func (s *State) giveUp(j *Job, w *Worker) Change {
	n := *s.Node(w.Node)
	if len(n.Stale) < maxStaleRefs {
		n.Stale = append(slices.Clone(n.Stale), WorkerRef{Job: j.ID, Epoch: j.Epoch, Rank: w.Rank, GPUs: w.GPUs})
	}
	n.ChangedAt = s.now
	s.putNode(&n)
	w.State, w.Message = WorkerLost, "does not answer: all others ask for a new ring, and it has not asked"
	return Change{Node: n.ID}
}
