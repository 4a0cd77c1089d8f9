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
	step     int64 // of the newest checkpoint that it wrote; the first member only

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
	p.gang.left(p)
	p.agent.changed()
	p.agent.reconcile()
}

// halt asks a worker to end, or to end sooner than it was asked before.
func (p *proc) halt(stop reconcile.Stop) {
	w := p.agent.w
	if p.stopping == nil && stop.Warn > 0 && p == p.gang.first() {
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
