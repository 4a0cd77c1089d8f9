package sim

import (
	"slices"
	"time"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
)

// gang is one epoch of a job as it physically trains: while all members of its newest formation run. A gang that may
// not shrink has one formation, and trains no more once a member is gone.
type gang struct {
	w         *world
	key       gangKey
	job       *job
	resume    time.Duration // work that the checkpoint had when it started
	formation int32
	members   []cluster.Rank
	procs     []*proc
	gone      int
	training  bool
	bout      int // counts the times that it has begun to train
	complete  bool
	since     cluster.Time
	done      time.Duration // work done, resumed work included
}

// gangOf returns the gang of an epoch, and makes it when its first worker is launched.
func (w *world) gangOf(key reconcile.Key, d detail) *gang {
	k := gangKey{key.Job, key.Epoch}
	g := w.machine.gangs[k]
	if g == nil {
		resume := time.Duration(d.resume) * time.Millisecond
		g = &gang{w: w, key: k, job: w.clients.byID(cluster.JobID(key.Job)), formation: d.formation, members: d.members, resume: resume, done: resume}
		w.machine.gangs[k] = g
	}
	return g
}

// worked is the work done by now.
func (g *gang) worked() time.Duration {
	if g.training {
		return g.done + g.w.clock.now.Sub(g.since)
	}
	return g.done
}

// form takes what a node was told of who the members are. They train on once all of them run.
func (g *gang) form(d *detail) {
	if d.formation > g.formation {
		g.formation, g.members = d.formation, d.members
		g.joined()
	}
}

// member returns the running worker of a rank, or nil.
func (g *gang) member(rank cluster.Rank) *proc {
	for _, p := range g.procs {
		if p.key.Rank == int(rank) && p.phase == running {
			return p
		}
	}
	return nil
}

// first is the member that saves, or nil.
func (g *gang) first() *proc {
	for _, rank := range g.members {
		if p := g.member(rank); p != nil {
			return p
		}
	}
	return nil
}

// joined is called when one more worker runs, or the members are others. The last one lets the training begin.
func (g *gang) joined() {
	if g.training || g.complete {
		return
	}
	for _, rank := range g.members {
		if g.member(rank) == nil {
			return
		}
	}
	g.training, g.since = true, g.w.clock.now
	g.bout++
	g.later(max(g.job.service-g.done, 0), g.finish)
	g.planCheckpoint()
	if at := g.job.failsAt; at > g.done && at < g.job.service && !g.job.failed {
		g.later(at-g.done, g.stumble)
	}
}

// later does something after so much more training, unless that is interrupted.
func (g *gang) later(d time.Duration, do func()) {
	bout := g.bout
	g.w.clock.after(d, func() {
		if g.training && g.bout == bout {
			do()
		}
	})
}

func (g *gang) planCheckpoint() {
	g.later(time.Duration(g.w.set.CheckpointEach), func() {
		g.checkpoint()
		g.planCheckpoint()
	})
}

// checkpoint saves the work done, and lets the agent of the first member know.
func (g *gang) checkpoint() {
	if p := g.first(); g.training && p != nil {
		p.step = g.worked().Milliseconds()
		p.agent.changed()
	}
}

// finish is the end of the training: each member exits with 0, not all at the same moment.
func (g *gang) finish() {
	g.done, g.training, g.complete = g.job.service, false, true
	for _, rank := range g.members {
		p := g.member(rank)
		g.w.clock.after(g.w.upTo(time.Second), func() { p.exit(cluster.WorkerExited, 0, 0) })
	}
}

// stumble is a failure of the job's own: one rank exits with 1.
func (g *gang) stumble() {
	if g.job.failed {
		return
	}
	g.job.failed = true
	g.w.faults.WorkerFailures++
	g.member(g.members[g.w.net.IntN(len(g.members))]).exit(cluster.WorkerExited, 1, 0)
}

// left is called when a worker is gone. If it was a member the ring is broken: if the gang may shrink, the others wait to
// hear who the members are now; else some peers notice and exit, and the others hang until they are stopped.
func (g *gang) left(p *proc) {
	if g.gone++; g.gone == len(g.procs) {
		delete(g.w.machine.gangs, g.key)
	}
	wasTraining := g.training
	if !slices.Contains(g.members, cluster.Rank(p.key.Rank)) && g.gone < len(g.procs) { //nolint:gosec // a rank
		return
	}
	g.done, g.training = g.worked(), false
	g.job.worked, g.job.workedIn = g.done, g.key.epoch
	if !wasTraining || g.job.spec.OnFailure == cluster.FailureShrinks {
		return
	}
	for _, p := range g.procs {
		if p.alive() && g.w.net.IntN(3) > 0 {
			g.w.clock.after(g.w.upTo(peerTimeout), func() {
				if p.alive() {
					p.peerLost = true
					p.exit(cluster.WorkerExited, 1, 0)
				}
			})
		}
	}
}

// peerTimeout is how long a rank may take to see that a peer is gone.
const peerTimeout = 20 * time.Second
