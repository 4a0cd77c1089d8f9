package cluster

import (
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

// text writes an array's indices as a job file does.
func (a *ArraySpec) text() string {
	if a.Step > 1 {
		return fmt.Sprintf("%d-%d:%d", a.First, a.Last, a.Step)
	}
	return fmt.Sprintf("%d-%d", a.First, a.Last)
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
