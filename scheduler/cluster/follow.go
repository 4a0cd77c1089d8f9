package cluster

import (
	"encoding/binary"
	"fmt"
)

// tally counts the members of an array.
type tally struct {
	kept int32    // that the state remembers
	left int32    // that have not ended
	bad  int32    // that have ended otherwise than by success, forgotten ones included
	gone int32    // of bad: those forgotten
	spec *JobSpec // of each of them
}

// count keeps the tally of a job's array in step with a new version of the job.
func (s *State) count(old was, j *Job) {
	if old.job != nil && old.state.Final() == j.State.Final() {
		return
	}
	t, _ := s.arrays.Get(j.Array)
	if old.job != nil { // it has ended
		t.left--
	} else {
		t.kept, t.spec = t.kept+1, j.Spec
	}
	switch {
	case !j.State.Final():
		t.left++
	case j.State != Succeeded:
		t.bad++
	}
	s.arrays.Set(j.Array, t)
}

// uncount keeps the tally of its array in step with a final job's being forgotten.
func (s *State) uncount(j *Job) {
	if j.Array == 0 {
		return
	}
	t, _ := s.arrays.Get(j.Array)
	if j.State != Succeeded {
		t.gone++
	}
	if t.kept--; t.kept == 0 {
		s.arrays.Delete(j.Array)
		return
	}
	s.arrays.Set(j.Array, t)
}

// target names what a dependency waits for, as the first part of followKey: a
// job, or all of an array.
type target struct {
	job   JobID
	whole bool // all of the array whose first job it is
}

// targetOf is what a job waits for by one of its dependencies.
func (s *State) targetOf(j *Job, d Dependency) target {
	index := d.Index
	switch d.Scope {
	case ScopeWhole:
		_, array := s.arrays.Get(d.Job)
		return target{d.Job, array}
	case ScopeEach:
		index = j.ArrayIndex
	default:
	}
	id, _ := s.member(d.Job, index)
	return target{job: id}
}

// member is the job with an index of the array whose first job is named.
func (s *State) member(array JobID, index int32) (JobID, bool) {
	t, known := s.arrays.Get(array)
	if !known {
		return 0, false
	}
	a := &t.spec.Array
	if index < a.First || index > a.Last || (index-a.First)%a.Step != 0 {
		return 0, false
	}
	return array + JobID((index-a.First)/a.Step), true //nolint:gosec // not negative
}

const followPrefix = 9 // bytes of a followKey that name the target

// followKey is a job's place among those that wait for a target.
func followKey(t target, follower JobID, dep int) string {
	b := make([]byte, 0, 24)
	if t.whole {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(t.job))
	b = binary.BigEndian.AppendUint64(b, uint64(follower))
	return string(append(b, byte(dep)))
}

// followers lists the jobs that wait for a target, each once, at most so many.
func (s *State) followers(t target, most int) (ids []JobID) {
	from := followKey(t, 0, 0)
	s.follows.Ascend(from, func(key string, id JobID) bool {
		if key[:followPrefix] != from[:followPrefix] || len(ids) >= most {
			return false
		}
		if n := len(ids); n == 0 || ids[n-1] != id {
			ids = append(ids, id)
		}
		return true
	})
	return ids
}

// trackFollows keeps who waits for whom in step with a job's new version, of which
// other dependencies are unmet than were. What it waits for is there as long as it
// waits.
func (s *State) trackFollows(old uint32, j *Job) {
	for i, d := range j.Spec.Dependencies() {
		key, bit := "", uint32(1)<<i
		if (old^j.Unmet)&bit != 0 {
			key = followKey(s.targetOf(j, d), j.ID, i)
		}
		switch {
		case key == "":
		case j.Unmet&bit != 0:
			s.follows.Set(key, j.ID)
		default:
			s.follows.Delete(key)
		}
	}
}

// Followed reports whether another job waits for this one, or for its array.
func (s *State) Followed(j *Job) bool {
	return len(s.followers(target{job: j.ID}, 1)) > 0 || (j.Array != 0 && len(s.followers(target{j.Array, true}, 1)) > 0)
}

// checkAfter returns an error for people if one of a new job's dependencies
// names nothing that is known.
func (s *State) checkAfter(spec *JobSpec) error {
	for _, d := range spec.Dependencies() {
		of, array := s.arrays.Get(d.Job)
		switch {
		case !array && s.Job(d.Job) == nil:
			return fmt.Errorf("after: job %d does not exist, or ended so long ago that it was forgotten: leave %s out, or name another job", d.Job, d)
		case d.Scope != ScopeWhole && !array:
			return fmt.Errorf("after: job %d is not the first of an array: %s means nothing, ok:%d means the job", d.Job, d, d.Job)
		}
		for i := range spec.Array.Count() {
			index := d.Index
			if d.Scope == ScopeEach {
				index = spec.Array.First + i*spec.Array.Step
			} else if i > 0 {
				break
			}
			if d.Scope == ScopeWhole {
				break
			}
			id, ok := s.member(d.Job, index)
			switch {
			case !ok:
				return fmt.Errorf("after: %s: array %d has no index %d: its indices are %s", d, d.Job, index, of.spec.Array.text())
			case s.Job(id) == nil:
				return fmt.Errorf("after: %s: index %d of array %d ended so long ago that it was forgotten: leave it out", d, index, d.Job)
			}
		}
		if n := len(s.followers(target{d.Job, array}, MaxFollowers)); d.Scope == ScopeWhole && n+int(spec.Array.Count()) > MaxFollowers {
			return fmt.Errorf("after: %d jobs wait for job %d already, at most %d may: let one job in between wait for it", n, d.Job, MaxFollowers)
		}
	}
	return nil
}

// verdict is what has become of a dependency.
type verdict uint8

const (
	undecided verdict = 0
	met       verdict = 1
	never     verdict = 2 // it cannot be met any more
)

// judgeOne looks what has become of a job's dependency.
func (s *State) judgeOne(j *Job, d Dependency) verdict {
	t := s.targetOf(j, d)
	bad, over := false, false
	if t.whole {
		a, _ := s.arrays.Get(t.job)
		bad, over = a.bad > 0, a.left == 0
	} else {
		first := s.Job(t.job)
		over = first.State.Final()
		bad = over && first.State != Succeeded
	}
	switch {
	case d.Cond == AfterOK && bad:
		return never // an array's other members need not end first
	case !over:
		return undecided
	case d.Cond == AfterNotOK && !bad:
		return never
	default:
		return met
	}
}

// judge looks what has become of a waiting job's dependencies: it may start, or
// it never will and is cancelled, or it waits on. It reports whether the job changed.
func (s *State) judge(id JobID) bool {
	old := s.Job(id)
	if old == nil || old.Unmet == 0 {
		return false
	}
	j := *old
	for i, d := range j.Spec.Dependencies() {
		if bit := uint32(1) << i; j.Unmet&bit != 0 {
			switch s.judgeOne(&j, d) {
			case met:
				j.Unmet &^= bit
			case never:
				s.finish(&j, Cancelled, "cancelled: "+s.neverText(&j, d))
				s.putJob(&j)
				return true
			default:
			}
		}
	}
	switch {
	case j.Unmet == 0:
		j.ReadyAt, j.PendingAt, j.Reason = s.now, s.now, reasonNext
	default:
		j.Reason = s.afterText(&j)
	}
	if j.Unmet == old.Unmet && j.Reason == old.Reason {
		return false
	}
	s.putJob(&j)
	return true
}

const reasonNext = "waits for the scheduler's next pass"

// ended notes that a job has ended, for those that wait for it.
func (s *State) ended(j *Job) {
	if s.follows.Len() == 0 {
		return
	}
	s.due = append(s.due, target{job: j.ID})
	if t, _ := s.arrays.Get(j.Array); j.Array != 0 && (t.left == 0 || (t.bad == 1 && j.State != Succeeded)) {
		s.due = append(s.due, target{job: j.Array, whole: true}) // the rest of its members decides nothing
	}
}

// followUp looks at all that waited for what a command has ended. Each job is
// let go, or cancelled, once in its life.
func (s *State) followUp(changes []Change) []Change {
	for len(s.due) > 0 {
		t := s.due[0]
		s.due = s.due[1:]
		for _, id := range s.followers(t, MaxFollowers) {
			if s.judge(id) {
				changes = append(changes, Change{Job: id})
			}
		}
	}
	s.due = nil
	return changes
}

// Waits lists the jobs for which a Pending job waits, those that have not
// started included: of an array its first job. None: it waits for none.
func (s *State) Waits(j *Job) (ids []JobID) {
	for i, d := range j.Spec.Dependencies() {
		if j.Unmet&(1<<i) != 0 {
			ids = append(ids, s.targetOf(j, d).job)
		}
	}
	return ids
}

// EachBefore calls f for the jobs that must end before a Pending job may start,
// as far as the state remembers them, until f returns false.
func (s *State) EachBefore(j *Job, f func(*Job) bool) {
	for i, d := range j.Spec.Dependencies() {
		if j.Unmet&(1<<i) == 0 {
			continue
		}
		t, n := s.targetOf(j, d), int32(1)
		if t.whole {
			a, _ := s.arrays.Get(t.job)
			n = a.spec.Array.Count()
		}
		for k := range n {
			if first := s.Job(t.job + JobID(k)); first != nil && !f(first) { //nolint:gosec // not negative
				return
			}
		}
	}
}
