package control

import (
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner"
)

// Leases says until when each node is considered alive, by the clock that gives
// Step its now. They live in the leader's memory, never in the log. A new leader grants every known node a
// full lease before its first Step.
type Leases map[cluster.NodeID]cluster.Time

// Config tunes Step.
type Config struct {
	Planner planner.Config
	// LaunchTimeout is how long a job may be Starting before it is evicted and
	// blamed. Too small: slow file systems fail jobs. Default 5 min.
	LaunchTimeout time.Duration
	// KeepFinal is how many final jobs the state remembers. Default 10,000.
	KeepFinal int
	// ForgetLostNodes is how long a lost node stays listed. Default 24 h.
	ForgetLostNodes time.Duration
	// Thorough is how often a Stepper looks at more than what has changed: time
	// limits, drains, reservations, preemption. Default 1 s.
	Thorough time.Duration
}

// Bounds of one step, so that its log entries stay few; the next step does the rest.
const (
	maxForgets = 256
)

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config {
	return Config{
		Planner: planner.DefaultConfig(), LaunchTimeout: 5 * time.Minute,
		KeepFinal: 10_000, ForgetLostNodes: 24 * time.Hour, Thorough: time.Second,
	}
}

// Step returns the commands that the leader should propose now, in order, as a
// Stepper does that has just been made.
func Step(s *cluster.State, leases Leases, now cluster.Time, cfg Config) []cluster.Command {
	cmds, _ := NewStepper(cfg).Step(s, leases, now)
	return cmds
}

func loseNodes(s *cluster.State, leases Leases, now cluster.Time) []cluster.Command {
	if len(leases) == 0 {
		return nil
	}
	var cmds []cluster.Command
	s.EachNode(func(n *cluster.Node) bool {
		until, known := leases[n.ID]
		if n.State == cluster.NodeReady && known && now >= until {
			cmds = append(cmds, &cluster.LoseNode{
				Node: n.ID, Incarnation: n.Incarnation,
				Reason: fmt.Sprintf("no heartbeat until its lease ran out, %s ago", now.Sub(until).Round(time.Millisecond)),
			})
		}
		return true
	})
	return cmds
}

// evictOverdue stops jobs that have outlived their time limit, or never came
// up, and says when the next one will have.
func evictOverdue(s *cluster.State, now cluster.Time, cfg Config) (cmds []cluster.Command, next cluster.Time) {
	s.EachHolding(func(j *cluster.Job) bool {
		ran := now.Sub(j.StartedAt)
		if j.State != cluster.Stopping && j.Spec.TimeLimit > 0 {
			next = sooner(next, j.StartedAt.Add(j.Spec.TimeLimit))
		}
		if j.State == cluster.Starting {
			next = sooner(next, j.StartedAt.Add(cfg.LaunchTimeout))
		}
		switch {
		case j.State == cluster.Stopping:
		case j.Spec.TimeLimit > 0 && ran >= j.Spec.TimeLimit:
			cmds = append(cmds, &cluster.EvictJob{
				Job: j.ID, Epoch: j.Epoch, Cause: cluster.StopTimeLimit,
				Reason: fmt.Sprintf("reached its time limit of %s", j.Spec.TimeLimit),
			})
		case j.State == cluster.Starting && ran >= cfg.LaunchTimeout:
			cmds = append(cmds, &cluster.EvictJob{
				Job: j.ID, Epoch: j.Epoch, Cause: cluster.StopLaunchStuck,
				Reason: fmt.Sprintf("not all workers had started after %s", cfg.LaunchTimeout),
			})
		}
		return true
	})
	return cmds, next
}

// maxPlacementBytes is what one worker or one GPU takes at most in a StartJob.
const maxPlacementBytes = cluster.MaxNameLen + 16

// oversized says why no log entry can hold a gang's start (very long GPU ids,
// say), or nothing. Proposed, it would be refused together with all other
// commands, in this step and in every later one.
func oversized(start *cluster.StartJob) string {
	parts := 2
	for _, w := range start.Workers {
		parts += 1 + len(w.GPUs)
	}
	if parts*maxPlacementBytes <= cluster.MaxCommandBytes {
		return "" // the usual case, without encoding it
	}
	n := len(cluster.AppendCommand(nil, start))
	if n <= cluster.MaxCommandBytes {
		return ""
	}
	return fmt.Sprintf("cannot start: where its %d workers go takes %d bytes, a log entry holds %d: ask for fewer GPUs, or use launch: per-node",
		len(start.Workers), n, cluster.MaxCommandBytes)
}

// forgetJobs drops the oldest final jobs beyond the bound.
func forgetJobs(s *cluster.State, cfg Config) []cluster.Command {
	final := s.Count(cluster.Succeeded) + s.Count(cluster.Failed) + s.Count(cluster.Cancelled)
	over := min(final-cfg.KeepFinal, maxForgets)
	if over <= 0 {
		return nil
	}
	f := &cluster.ForgetJobs{}
	s.EachFinished(func(j *cluster.Job) bool {
		f.Jobs = append(f.Jobs, j.ID)
		return len(f.Jobs) < over
	})
	return []cluster.Command{f}
}

// tendNodes forgets nodes that were lost long ago, and moves jobs away from
// drained ones whose deadline has come.
func tendNodes(s *cluster.State, now cluster.Time, cfg Config) (cmds []cluster.Command, next cluster.Time) {
	moved := map[cluster.JobID]bool{}
	s.EachNode(func(n *cluster.Node) bool {
		if n.State == cluster.NodeLost && !n.Holds() {
			at := n.ChangedAt.Add(cfg.ForgetLostNodes)
			if next = sooner(next, at); now >= at {
				cmds = append(cmds, &cluster.ForgetNode{Node: n.ID})
			}
		}
		if n.Drain == nil || n.Drain.Deadline == 0 || !n.Holds() {
			return true
		}
		if next = sooner(next, n.Drain.Deadline); now < n.Drain.Deadline {
			return true
		}
		for i := range n.GPUs {
			n.GPUs[i].EachHolder(func(id cluster.JobID, e cluster.Epoch) {
				if j := s.Job(id); !moved[id] && (j.State == cluster.Starting || j.State == cluster.Running) {
					moved[id] = true
					cmds = append(cmds, &cluster.EvictJob{
						Job: id, Epoch: e, Cause: cluster.StopDrain,
						Reason: fmt.Sprintf("node %s is drained (%s) and its deadline has come", n.Name, n.Drain.Reason),
					})
				}
			})
		}
		return true
	})
	return cmds, next
}

// sooner is the earlier of two times of which 0 means never.
func sooner(a, b cluster.Time) cluster.Time {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}
