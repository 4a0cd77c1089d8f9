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

// sooner is the earlier of two times of which 0 means never.
func sooner(a, b cluster.Time) cluster.Time {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}
