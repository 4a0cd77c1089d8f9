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
}

// Bounds of one step, so that its log entries stay few; the next step does the rest.
const (
	maxExplains = 1024
	maxForgets  = 256
)

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config {
	return Config{
		Planner: planner.DefaultConfig(), LaunchTimeout: 5 * time.Minute,
		KeepFinal: 10_000, ForgetLostNodes: 24 * time.Hour,
	}
}

// Step returns the commands that the leader should propose now, in order. It
// is to be called again when the state has changed, and when time has passed.
func Step(s *cluster.State, leases Leases, now cluster.Time, cfg Config) []cluster.Command {
	// 1. Nodes whose lease ran out. What they held is known only once that is
	//    committed, so nothing else is decided in the same step. Leases are of
	//    this leader's clock, whatever clock an earlier leader had.
	if cmds := loseNodes(s, leases, now); len(cmds) > 0 {
		return cmds
	}
	now = max(now, s.Now())
	// 2. Jobs that have outlived their time limit, or never came up.
	cmds := evictOverdue(s, now, cfg)
	// 3. Gangs that start now, and why the others wait.
	cmds = append(cmds, plan(s, now, cfg)...)
	// 4. History over its bound.
	return append(cmds, forget(s, now, cfg)...)
}

func loseNodes(s *cluster.State, leases Leases, now cluster.Time) []cluster.Command {
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

func evictOverdue(s *cluster.State, now cluster.Time, cfg Config) []cluster.Command {
	var cmds []cluster.Command
	s.EachHolding(func(j *cluster.Job) bool {
		ran := now.Sub(j.StartedAt)
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
	return cmds
}

func plan(s *cluster.State, now cluster.Time, cfg Config) []cluster.Command {
	p := planner.Make(s, now, cfg.Planner)
	cmds := make([]cluster.Command, 0, len(p.Starts))
	for _, st := range p.Starts {
		start := &cluster.StartJob{Job: st.Job, Epoch: st.Epoch, Workers: st.Workers}
		why := oversized(start)
		switch {
		case why == "":
			cmds = append(cmds, start)
		case s.Job(st.Job).Reason != why:
			cmds = append(cmds, &cluster.ExplainJob{Job: st.Job, Reason: why})
		}
	}
	explains := 0
	for _, r := range p.Reasons {
		if explains >= maxExplains {
			break
		}
		if s.Job(r.Job).Reason != r.Text {
			cmds = append(cmds, &cluster.ExplainJob{Job: r.Job, Reason: r.Text})
			explains++
		}
	}
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

func forget(s *cluster.State, now cluster.Time, cfg Config) []cluster.Command {
	var cmds []cluster.Command
	final := s.Count(cluster.Succeeded) + s.Count(cluster.Failed) + s.Count(cluster.Cancelled)
	if over := min(final-cfg.KeepFinal, maxForgets); over > 0 {
		f := &cluster.ForgetJobs{}
		s.EachFinished(func(j *cluster.Job) bool {
			f.Jobs = append(f.Jobs, j.ID)
			return len(f.Jobs) < over
		})
		cmds = append(cmds, f)
	}
	s.EachNode(func(n *cluster.Node) bool {
		if n.State == cluster.NodeLost && now.Sub(n.ChangedAt) >= cfg.ForgetLostNodes && !n.Holds() {
			cmds = append(cmds, &cluster.ForgetNode{Node: n.ID})
		}
		return true
	})
	return cmds
}
