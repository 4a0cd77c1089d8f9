package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
)

const (
	sigKill int32 = 9
	sigTerm int32 = 15
)

// phase is where a worker is.
type phase int

const (
	launching phase = iota + 1
	running
	ended
)

// proc is one worker: while alive a process on a machine, then a line in its node's journal.
type proc struct {
	agent    *agent
	gang     *gang // nil if it was declined
	key      reconcile.Key
	gpus     []string
	milli    int // of each of them; 0: all
	phase    phase
	stubborn bool
	stopping *reconcile.Stop
	acked    bool
	step     int64 // of the newest checkpoint that it wrote; rank 0 only

	// How it ended.
	end      cluster.WorkerState
	code     int32
	signal   int32
	peerLost bool
	stopped  bool
}

func (p *proc) alive() bool { return p.phase == launching || p.phase == running }

// machine is what physically is, whatever anybody believes.
type machine struct {
	alive    int                   // workers
	holders  map[string][]*proc    // by GPU; several hold parts of it
	launched map[reconcile.Key]int // agent on which a worker was launched, ever
	gangs    map[gangKey]*gang
}

type gangKey struct{ job, epoch uint64 }

func newMachine() *machine {
	return &machine{holders: map[string][]*proc{}, launched: map[reconcile.Key]int{}, gangs: map[gangKey]*gang{}}
}

// launch gives a worker its GPUs. It returns an error if that must not be.
func (m *machine) launch(p *proc) error {
	if before, twice := m.launched[p.key]; twice {
		return fmt.Errorf("worker %s is launched on node n%d, and was launched on node n%d before: one epoch of a worker runs once", p.key, p.agent.i, before)
	}
	m.launched[p.key] = p.agent.i
	m.alive++
	for _, uuid := range p.gpus {
		milli := reconcile.Share(p.milli)
		for _, other := range m.holders[uuid] {
			if milli += reconcile.Share(other.milli); milli > reconcile.WholeGPU {
				return fmt.Errorf("GPU %s is used by workers %s and %s at once", uuid, other.key, p.key)
			}
		}
		m.holders[uuid] = append(m.holders[uuid], p)
	}
	return nil
}

// start is the moment at which a launched worker runs.
func (p *proc) start() {
	if p.phase != launching {
		return
	}
	p.phase = running
	p.agent.changed()
	p.gang.joined()
}

// exit ends a worker. Its node's journal knows; whether anybody is told depends on the agent.
func (p *proc) exit(st cluster.WorkerState, code, signal int32) {
	if !p.alive() {
		return
	}
	m := p.agent.w.machine
	m.alive--
	for _, uuid := range p.gpus {
		left := slices.DeleteFunc(m.holders[uuid], func(o *proc) bool { return o == p })
		if m.holders[uuid] = left; len(left) == 0 {
			delete(m.holders, uuid)
		}
	}
	p.phase, p.end, p.code, p.signal = ended, st, code, signal
	p.stopped = p.stopping != nil
	p.gang.left()
	p.agent.changed()
	p.agent.reconcile()
}

// halt asks a worker to end, or to end sooner than it was asked before.
func (p *proc) halt(stop reconcile.Stop) {
	w := p.agent.w
	if p.stopping == nil && stop.Warn > 0 && p.key.Rank == 0 {
		p.gang.checkpoint()
	}
	p.stopping = &stop
	limit := stop.Warn + stop.Grace
	if p.stubborn {
		w.clock.after(limit, func() { p.exit(cluster.WorkerExited, 0, sigKill) })
		return
	}
	w.clock.after(time.Duration(w.net.Int64N(int64(limit)+1)), func() { p.exit(cluster.WorkerExited, 0, sigTerm) })
}

// gang is one epoch of a job as it physically trains: from the moment when all ranks run to the moment when one is gone.
type gang struct {
	w        *world
	key      gangKey
	job      *job
	world    int
	resume   time.Duration // work that the checkpoint had when it started
	procs    []*proc
	started  int
	gone     int
	training bool
	complete bool
	since    cluster.Time
	done     time.Duration // work done, resumed work included
}

// gangOf returns the gang of an epoch, and makes it when its first worker is launched.
func (w *world) gangOf(key reconcile.Key, d detail) *gang {
	k := gangKey{key.Job, key.Epoch}
	g := w.machine.gangs[k]
	if g == nil {
		resume := time.Duration(d.resume) * time.Millisecond
		g = &gang{w: w, key: k, job: w.clients.byID(cluster.JobID(key.Job)), world: d.world, resume: resume, done: resume}
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

// joined is called when one more worker runs. The last one lets the training begin.
func (g *gang) joined() {
	g.started++
	if g.started < g.world || g.gone > 0 {
		return
	}
	g.training, g.since = true, g.w.clock.now
	left := max(g.job.service-g.resume, 0)
	g.w.clock.after(left, g.finish)
	g.planCheckpoint()
	if at := g.job.failsAt; at > g.resume && at < g.job.service && !g.job.failed {
		g.w.clock.after(at-g.resume, g.stumble)
	}
}

func (g *gang) planCheckpoint() {
	g.w.clock.after(time.Duration(g.w.set.CheckpointEach), func() {
		if g.training {
			g.checkpoint()
			g.planCheckpoint()
		}
	})
}

// checkpoint saves the work done, and lets rank 0's agent know.
func (g *gang) checkpoint() {
	if !g.training {
		return
	}
	for _, p := range g.procs {
		if p.key.Rank == 0 && p.phase == running {
			p.step = g.worked().Milliseconds()
			p.agent.changed()
		}
	}
}

// finish is the end of the training: each rank exits with 0, not all at the same moment.
func (g *gang) finish() {
	if !g.training {
		return
	}
	g.done, g.training, g.complete = g.job.service, false, true
	for _, p := range g.procs {
		g.w.clock.after(g.w.upTo(time.Second), func() { p.exit(cluster.WorkerExited, 0, 0) })
	}
}

// stumble is a failure of the job's own: one rank exits with 1.
func (g *gang) stumble() {
	if !g.training || g.job.failed {
		return
	}
	g.job.failed = true
	g.w.faults.WorkerFailures++
	g.procs[g.w.net.IntN(len(g.procs))].exit(cluster.WorkerExited, 1, 0)
}

// left is called when a worker is gone: the ring is broken. Some peers notice and exit, the others hang until they are stopped.
func (g *gang) left() {
	wasTraining := g.training
	g.done, g.training = g.worked(), false
	g.job.worked, g.job.workedIn = g.done, g.key.epoch
	if g.gone++; g.gone == len(g.procs) {
		delete(g.w.machine.gangs, g.key)
	}
	if !wasTraining {
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
