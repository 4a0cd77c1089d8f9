package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of dependencies.
const (
	// MaxAfter is how many dependencies a job may have: Job.Unmet has a bit for each.
	MaxAfter = 32
	// MaxFollowers is how many jobs may wait for one job or array. When that ends,
	// one command lets all of them go on.
	MaxFollowers = 10_000
	// namedDependencies is how many a reason names.
	namedDependencies = 3
)

// Condition says how a job must have ended so that one after it may start.
type Condition uint8

// Conditions. The zero value is invalid.
const (
	AfterOK    Condition = 1 // it succeeded; of an array: all members did
	AfterNotOK Condition = 2 // it failed or was cancelled; of an array: all members have ended, and at least one so
	AfterAny   Condition = 3 // it has ended, in whatever way; of an array: all members have
)

var conditionNames = [...]string{"invalid", "ok", "notok", "any"} //nolint:gochecknoglobals // table

// String returns the condition as a job file names it.
func (c Condition) String() string {
	if int(c) < len(conditionNames) {
		return conditionNames[c]
	}
	return conditionNames[0]
}

// Scope says which jobs of an array a dependency is about.
type Scope uint8

// Scopes. The zero Scope is that of a single job, or of all members of an array.
const (
	ScopeWhole  Scope = 0 // the job; if it is the first of an array, all of the array's members
	ScopeMember Scope = 1 // the member with Index of the array whose first job is named
	ScopeEach   Scope = 2 // the member with the same index as the one that waits, of the array whose first job is named
)

// Dependency is a job that must have ended before another one may start. It
// was submitted before, so that dependencies never go round.
type Dependency struct {
	Job   JobID
	Index int32 // of ScopeMember
	Cond  Condition
	Scope Scope
}

// String is the dependency as a job file writes it: "ok:12", "any:12_3", "each:12".
func (d Dependency) String() string {
	switch d.Scope {
	case ScopeMember:
		return fmt.Sprintf("%s:%d_%d", d.Cond, d.Job, d.Index)
	case ScopeEach:
		return fmt.Sprintf("each:%d", d.Job)
	default:
		return fmt.Sprintf("%s:%d", d.Cond, d.Job)
	}
}

// Conditions is all that must have happened before a job may start.
type Conditions struct{ All []Dependency }

// Dependencies are those of the spec, or none.
func (s *JobSpec) Dependencies() []Dependency {
	if s.After == nil {
		return nil
	}
	return s.After.All
}

// validateAfter checks what can be checked without the cluster.
func (s *JobSpec) validateAfter() error {
	var errs []error
	deps := s.Dependencies()
	if len(deps) > MaxAfter {
		errs = append(errs, fmt.Errorf("after: %d jobs, at most %d: let one job in between wait for some of them", len(deps), MaxAfter))
	}
	for i, d := range deps {
		switch {
		case d.Job == 0 || d.Cond < AfterOK || d.Cond > AfterAny || d.Scope > ScopeEach || d.Index < 0:
			errs = append(errs, fmt.Errorf("after: %s is not a dependency such as ok:12", d))
		case d.Scope == ScopeEach && (d.Cond != AfterOK || s.Array.Step == 0):
			errs = append(errs, fmt.Errorf("after: %s is for the members of an array: give the job an array, or wait for ok:%d", d, d.Job))
		case slices.Contains(deps[:i], d):
			errs = append(errs, fmt.Errorf("after: %s is given twice", d))
		}
	}
	return errors.Join(errs...)
}

// tally counts the members of an array.
type tally struct {
	kept int32    // that the state remembers
	left int32    // that have not ended
	bad  int32    // that have ended otherwise than by success, forgotten ones included
	gone int32    // of bad: those forgotten
	spec *JobSpec // of each of them
}

// count keeps the tally of a job's array in step with a new version of the job.
// Either may be nil: it is new, or forgotten.
func (s *State) count(old, j *Job) {
	id := JobID(0)
	if j != nil {
		id = j.Array
	} else {
		id = old.Array
	}
	if id == 0 || (old != nil && j != nil && old.State.Final() == j.State.Final()) {
		return
	}
	t, _ := s.arrays.Get(id)
	if old != nil {
		t.kept--
		switch {
		case !old.State.Final():
			t.left--
		case old.State != Succeeded:
			t.gone++ // final jobs change only by being forgotten
		}
	}
	if j != nil {
		t.kept, t.spec = t.kept+1, j.Spec
		switch {
		case !j.State.Final():
			t.left++
		case j.State != Succeeded:
			t.bad++
		}
	}
	if t.kept == 0 {
		s.arrays.Delete(id)
		return
	}
	s.arrays.Set(id, t)
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

// trackFollows keeps who waits for whom in step with a job's new version. What
// it waits for is there as long as it waits.
func (s *State) trackFollows(old, j *Job) {
	was := uint32(0)
	if old != nil {
		was = old.Unmet
	}
	if was == j.Unmet {
		return
	}
	for i, d := range j.Spec.Dependencies() {
		key, bit := "", uint32(1)<<i
		if (was^j.Unmet)&bit != 0 {
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

// text writes an array's indices as a job file does.
func (a *ArraySpec) text() string {
	if a.Step > 1 {
		return fmt.Sprintf("%d-%d:%d", a.First, a.Last, a.Step)
	}
	return fmt.Sprintf("%d-%d", a.First, a.Last)
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

// afterText says for what a job waits, such as "waits for job 12 (train) to succeed".
func (s *State) afterText(j *Job) string {
	var parts []string
	more := 0
	for i, d := range j.Spec.Dependencies() {
		if j.Unmet&(1<<i) == 0 {
			continue
		}
		if len(parts) == namedDependencies {
			more++
			continue
		}
		what := [...]string{"", "to succeed", "to fail or be cancelled", "to end"}[d.Cond]
		parts = append(parts, s.targetText(s.targetOf(j, d))+" "+what)
	}
	out := "waits for " + strings.Join(parts, ", and for ")
	if more > 0 {
		out += fmt.Sprintf(", and for %s more", plural(more, "dependency"))
	}
	return cut(out)
}

func (s *State) targetText(t target) string {
	if t.whole {
		return fmt.Sprintf("all members of array %d", t.job)
	}
	if first := s.Job(t.job); first != nil {
		return fmt.Sprintf("job %d (%s)", t.job, first.Spec.Name)
	}
	return fmt.Sprintf("job %d", t.job)
}

// neverText says why a dependency can no longer be met.
func (s *State) neverText(j *Job, d Dependency) string {
	t := s.targetOf(j, d)
	how := "has succeeded"
	switch {
	case t.whole && d.Cond == AfterOK:
		how = "of which one has not succeeded"
	case t.whole:
		how = "which have all succeeded"
	case d.Cond == AfterOK:
		how = fmt.Sprintf("has not succeeded (%s)", s.Job(t.job).State)
	default:
	}
	if t.whole {
		return fmt.Sprintf("it was to start after %s (%s), %s", s.targetText(t), d, how)
	}
	return fmt.Sprintf("it was to start after %s (%s), which %s", s.targetText(t), d, how)
}
