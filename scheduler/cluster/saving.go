package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// MaxKeepBest bounds the metrics by which the best checkpoints of a job stay.
	MaxKeepBest = 8
	// maxMetricBytes is the longest name of a metric, as the agent socket takes it.
	maxMetricBytes = 64
	// minSaveInterval keeps a mistyped interval from saving all the time.
	minSaveInterval = time.Second
	// maxSaveInterval is longer than any job runs between two saves.
	maxSaveInterval = 30 * 24 * time.Hour
	// maxCkpts bounds what is counted in checkpoints.
	maxCkpts = 1_000_000
)

// CheckpointPolicy is when a job saves and which of its checkpoints stay,
// beside JobSpec.KeepCkpts. It never changes after submission. At most one of
// the three intervals is set; with none the program decides.
type CheckpointPolicy struct {
	Interval  time.Duration // between the starts of two saves; 0: not by time
	Steps     int64         // training steps between two saves; 0: not by steps
	Auto      bool          // by what a save costs and how often the job's nodes fail
	KeepEvery int64         // those whose step is a multiple of it stay; 0: none for that
	KeepBest  []KeepBest    // the best by these stay, at most MaxKeepBest
	PushNth   int32         // agents copy each n-th to the object store; 0: none, 1: each
}

// KeepBest says by which metric how many checkpoints stay.
type KeepBest struct {
	Metric string
	Lowest bool  // the lowest values are the best ones
	Count  int32 // at least 1
}

// validate returns all that is wrong, in the words of the job file. keep is
// JobSpec.KeepCkpts.
func (p *CheckpointPolicy) validate(keep int32) error {
	if p == nil {
		return nil
	}
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("checkpoint."+format, args...)) }
	if p.Interval != 0 && (p.Interval < minSaveInterval || p.Interval > maxSaveInterval) {
		bad("interval: %s is not in %s..%s", p.Interval, minSaveInterval, maxSaveInterval)
	}
	if p.Steps < 0 {
		bad("interval: %d steps is negative", p.Steps)
	}
	if p.Auto && (p.Interval != 0 || p.Steps != 0) || p.Interval != 0 && p.Steps != 0 {
		bad("interval: give one of a time, a number of steps, and auto")
	}
	if p.KeepEvery < 0 {
		bad("every: %d is negative: give a number of steps", p.KeepEvery)
	}
	if len(p.KeepBest) > MaxKeepBest {
		bad("best: %d metrics, at most %d", len(p.KeepBest), MaxKeepBest)
	}
	for i, b := range p.KeepBest {
		if b.Metric == "" || len(b.Metric) > maxMetricBytes || strings.ContainsFunc(b.Metric, control) || strings.ContainsAny(b.Metric, ",:") {
			bad("best: %.*q is not the name of a metric: 1 to %d bytes without control characters, commas and colons", maxMetricBytes, b.Metric, maxMetricBytes)
		}
		if b.Count < 1 || b.Count > maxCkpts {
			bad("best: %d checkpoints by %s is not in 1..%d", b.Count, b.Metric, maxCkpts)
		}
		for _, o := range p.KeepBest[:i] {
			if o.Metric == b.Metric {
				bad("best: %s is named twice: it has one direction", b.Metric)
			}
		}
	}
	if (p.KeepEvery > 0 || len(p.KeepBest) > 0) && keep == 0 {
		bad("keep: is missing: every and best say what stays beside the newest ones, so say how many of those")
	}
	if p.PushNth < 0 || p.PushNth > maxCkpts {
		bad("push: each %d. checkpoint is not in 1..%d", p.PushNth, maxCkpts)
	}
	return errors.Join(errs...)
}

func (p *CheckpointPolicy) code(c *coder) {
	c.dur(&p.Interval)
	c.i64(&p.Steps)
	c.bool(&p.Auto)
	c.i64(&p.KeepEvery)
	codeList(c, &p.KeepBest, func(c *coder, b *KeepBest) { c.str(&b.Metric); c.bool(&b.Lowest); c.i32(&b.Count) })
	c.i32(&p.PushNth)
}

// Experience is what GPUs have shown: how long jobs have held them, and how
// often that ended because a node or a GPU failed. Work that others stopped,
// and programs that failed of themselves, do not count as failures.
type Experience struct {
	Used     int64 // milli-GPU-seconds of ended epochs
	Failures int64
}

func (e *Experience) code(c *coder) {
	c.i64(&e.Used)
	c.i64(&e.Failures)
}

func (e *Experience) add(o Experience) {
	e.Used += o.Used
	e.Failures += o.Failures
}

// Experience is that of all nodes of all time.
func (s *State) Experience() Experience { return s.experience }

// ExperienceOf is that of the nodes on which a job runs, together.
func (s *State) ExperienceOf(j *Job) Experience {
	var sum Experience
	for _, id := range j.NodeRanks {
		if n := s.Node(id); n != nil {
			sum.add(n.Experience)
		}
	}
	return sum
}

// learn adds to a node's experience what the epoch of a job has shown that has
// just ended and has held so many GPUs of it. The caller may edit n.
func (s *State) learn(j *Job, n *Node, gpus int) {
	e := Experience{Used: int64(s.now.Sub(j.StartedAt)/time.Second) * int64(gpus) * int64(j.Spec.Share())}
	for i := 0; i < len(j.Workers) && j.Stop != 0; i++ { // one that nobody stopped has no failed worker
		if w := &j.Workers[i]; w.Node == n.ID && (w.State == WorkerLost || w.Blamed && n.ill(w.GPUs)) {
			e.Failures = 1
			break
		}
	}
	n.Experience.add(e)
	s.experience.add(e)
}

// ill reports whether one of the GPUs is not healthy.
func (n *Node) ill(uuids []string) bool {
	for _, uuid := range uuids {
		if i := n.FindGPU(uuid); i >= 0 && !n.GPUs[i].Healthy {
			return true
		}
	}
	return false
}

// maxLimitUsers bounds the users that a policy gives a limit of their own.
const maxLimitUsers = 10_000

func (l *CheckpointLimits) validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("checkpoints."+format, args...))
	}
	if l.UserBytes < 0 {
		bad("user_limit: %d bytes is negative", l.UserBytes)
	}
	if len(l.Users) > maxLimitUsers {
		bad("users: %d, at most %d", len(l.Users), maxLimitUsers)
	}
	for i, u := range l.Users {
		switch {
		case u.User == "" || len(u.User) > MaxNameLen || strings.ContainsFunc(u.User, control):
			bad("users: %.*q is not a user's name: 1 to %d bytes without control characters", MaxNameLen, u.User, MaxNameLen)
		case i > 0 && l.Users[i-1].User >= u.User:
			bad("users: %s is named twice", u.User)
		case u.Bytes < 0:
			bad("users: %s: %d bytes is negative", u.User, u.Bytes)
		}
	}
	return errors.Join(errs...)
}
