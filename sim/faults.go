package sim

import (
	"time"

	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
)

// FaultCounts says how often each kind of fault struck.
type FaultCounts struct {
	NodeFailures    int `json:"node_failures"`
	Reimaged        int `json:"nodes_reimaged"`
	AgentRestarts   int `json:"agent_restarts"`
	Partitions      int `json:"partitions"`
	SupervisorsLost int `json:"supervisors_lost"`
	LeaderChanges   int `json:"leader_changes"`
	WorkerFailures  int `json:"worker_failures"`
	ReportsLost     int `json:"reports_lost"`
	ReportsRepeated int `json:"reports_repeated"`
	OrdersRepeated  int `json:"orders_repeated"`
	SubmitsRepeated int `json:"submits_repeated"`
	SubmitsRetried  int `json:"submits_retried"`
	Cancels         int `json:"cancels"`
}

// startFaults lets each kind of fault strike again and again until the horizon.
func (w *world) startFaults() {
	r := &w.cfg.Rates
	nodes := float64(len(w.agents))
	w.strike(r.NodeFailures*nodes, func() { w.anyAgent().crash() })
	w.strike(r.AgentRestarts*nodes, func() { w.anyAgent().restart() })
	w.strike(r.Partitions*nodes, func() { w.anyAgent().partition() })
	w.strike(r.SupervisorsLost*nodes, func() { w.anyAgent().loseSupervisor() })
	w.strike(r.LeaderChanges, func() {
		if w.leader.up {
			w.faults.LeaderChanges++
			w.leader.fall()
		}
	})
}

// strike calls hit at random times, perHour times an hour on average.
func (w *world) strike(perHour float64, hit func()) {
	if perHour <= 0 {
		return
	}
	gap := time.Duration(w.chance.ExpFloat64() / perHour * float64(time.Hour))
	w.clock.after(max(gap, time.Millisecond), func() {
		if !w.calm {
			hit()
			w.strike(perHour, hit)
		}
	})
}

func (w *world) anyAgent() *agent { return w.agents[w.chance.IntN(len(w.agents))] }

// faultTime is a random time of which short ones are as likely as long ones: 100 ms to most, evenly by its logarithm.
func (w *world) faultTime(most time.Duration) time.Duration {
	d := most
	for d > 200*time.Millisecond && w.chance.IntN(8) > 0 {
		d /= 2
	}
	return d
}

// crash powers the machine off: its workers are gone at once, and the journal knows it when the machine is back.
func (a *agent) crash() {
	w := a.w
	if !a.powered {
		return
	}
	w.faults.NodeFailures++
	w.note("the machine dies", nil, a.i)
	a.powered, a.up = false, false
	a.disconnect()
	for _, p := range append([]*proc(nil), a.procs...) {
		p.exit(cluster.WorkerLost, 0, 0)
	}
	boots := a.boots
	reimaged := w.happens(w.cfg.Rates.Reimaged)
	w.clock.after(w.faultTime(w.cfg.Rates.RepairTime), func() {
		if a.boots == boots {
			a.boot(reimaged)
		}
	})
}

// boot brings the machine back, with its disk or with a new one.
func (a *agent) boot(reimaged bool) {
	if a.powered {
		return
	}
	a.w.note("the machine is back", nil, a.i)
	a.boots++
	a.powered = true
	if reimaged {
		a.w.faults.Reimaged++
		a.procs, a.process, a.fence = nil, 0, reconcile.Fence{}
		a.rename()
	}
	a.begin()
}

// begin starts the agent's process.
func (a *agent) begin() {
	a.process++
	a.up, a.desired, a.details = true, nil, nil
	a.dial()
}

// restart ends the agent's process and starts it again a little later. Workers do not notice.
func (a *agent) restart() {
	if !a.up {
		return
	}
	a.w.faults.AgentRestarts++
	a.w.note("the agent restarts", nil, a.i)
	a.up, a.desired = false, nil
	a.disconnect()
	process := a.process
	a.w.clock.after(a.w.faultTime(30*time.Second), func() {
		if a.powered && !a.up && a.process == process {
			a.begin()
		}
	})
}

// partition cuts the node off the servers for a while. Workers go on, and reach each other.
func (a *agent) partition() {
	if a.cut {
		return
	}
	a.w.faults.Partitions++
	a.w.note("the node is cut off", nil, a.i)
	a.cut = true
	a.disconnect()
	a.w.clock.after(a.w.faultTime(a.w.cfg.Rates.PartitionTime), a.rejoin)
}

func (a *agent) rejoin() {
	if !a.cut {
		return
	}
	a.w.note("the node is reachable again", nil, a.i)
	a.cut = false
	a.dial()
}

// loseSupervisor ends one worker in a way that nobody saw.
func (a *agent) loseSupervisor() {
	for _, p := range a.procs {
		if p.alive() {
			a.w.faults.SupervisorsLost++
			a.w.note("supervisor of "+p.key.String()+" vanishes", nil, a.i)
			p.exit(cluster.WorkerLost, 0, 0)
			return
		}
	}
}

// heal repairs whatever is wrong with the node.
func (a *agent) heal() {
	a.rejoin()
	if !a.powered {
		a.boot(false)
	}
	if !a.up {
		a.begin()
	}
}
