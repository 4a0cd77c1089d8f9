package planner

import (
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// Config tunes the planner.
type Config struct {
	// HoldAfter is how long the first blocked job waits before nodes are kept
	// free for it. Too small: small jobs wait although GPUs are idle; too
	// large: large gangs starve. Default 5 min.
	HoldAfter time.Duration
	// MaxStarts bounds the gangs of one plan, so that a plan's log entries stay
	// few; what is left starts with the next plan. Default 4096.
	MaxStarts int
}

// DefaultConfig returns the defaults named in Config.
func DefaultConfig() Config {
	return Config{HoldAfter: 5 * time.Minute, MaxStarts: 4096}
}

// Start is one gang to start.
type Start struct {
	Job     cluster.JobID
	Epoch   cluster.Epoch
	Workers []cluster.Placement // by rank
}

// Reason says why a job waits, as a sentence. It names only what changes
// seldom, so that a long queue does not write a reason for each job whenever
// a GPU is freed.
type Reason struct {
	Job  cluster.JobID
	Text string
}

// Plan is what the planner proposes against one state.
type Plan struct {
	Starts  []Start  // in the order in which they were chosen
	Reasons []Reason // jobs that wait, in their order; those in back-off keep their reason
}

// Make plans once over all pending jobs of the state, in order: priority, then
// age. A gang is placed whole or not at all. A job that does not fit is passed
// over and jobs behind it may start; once it has waited cfg.HoldAfter, they may
// start only where it will not (see keepFree).
// Cost: pending jobs x log + (starts + distinct refused shapes) x nodes.
func Make(s *cluster.State, now cluster.Time, cfg Config) Plan {
	var plan Plan
	queue := pendingInOrder(s)
	if len(queue) == 0 {
		return plan
	}
	pool := newPool(s)
	refused := map[shape]string{} // why a shape was refused in this plan; room only shrinks within it
	hopeless := map[shape]bool{}  // shapes that would not fit if all jobs ended
	var holder *cluster.Job
	var waitsBehind string
	for _, j := range queue {
		if now < j.NotBefore {
			continue
		}
		if len(plan.Starts) >= cfg.MaxStarts {
			break
		}
		key := shapeOf(j.Spec)
		why, known := refused[key]
		if !known {
			var workers []cluster.Placement
			if workers, why = pool.place(j.Spec); workers != nil {
				plan.Starts = append(plan.Starts, Start{Job: j.ID, Epoch: j.Epoch + 1, Workers: workers})
				continue
			}
			if holder != nil && competes(holder.Spec, j.Spec) {
				why = waitsBehind
			}
			refused[key] = why
		}
		plan.Reasons = append(plan.Reasons, Reason{j.ID, why})
		if holder == nil && now.Sub(j.PendingAt) >= cfg.HoldAfter && !hopeless[key] {
			if hopeless[key] = !pool.keepFree(j.Spec); !hopeless[key] {
				holder, waitsBehind = j, behind(j)
			}
		}
	}
	return plan
}
