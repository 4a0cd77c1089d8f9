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
	// KeepFinal is how many final jobs the state remembers, and a sixteenth more (at
	// most 256) until they are forgotten together. Default 10,000.
	KeepFinal int
	// ForgetLostNodes is how long a lost node stays listed. Default 24 h.
	ForgetLostNodes time.Duration
	// Thorough is how often a Stepper looks at more than what has changed: time
	// limits, drains, reservations, preemption. Default 1 s.
	Thorough time.Duration
}

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

// sooner is the earlier of two times of which 0 means never.
func sooner(a, b cluster.Time) cluster.Time {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}
