package sim

import (
	"fmt"
	"strings"
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
	GPUFailures     int `json:"gpu_failures"`
	LeaderChanges   int `json:"leader_changes"`
	Drains          int `json:"drains"`
	PolicyChanges   int `json:"policy_changes"`
	WorkerFailures  int `json:"worker_failures"`
	ReportsLost     int `json:"reports_lost"`
	ReportsRepeated int `json:"reports_repeated"`
	OrdersRepeated  int `json:"orders_repeated"`
	SubmitsRepeated int `json:"submits_repeated"`
	SubmitsRetried  int `json:"submits_retried"`
	Cancels         int `json:"cancels"`
}

// Kinds of Happening.
const (
	nodeFails      = "node fails"
	agentRestarts  = "agent restarts"
	nodeCutOff     = "node cut off"
	supervisorLost = "supervisor lost"
	gpuFails       = "gpu fails"
	leaderFalls    = "leader falls"
	nodeDrained    = "node drained"
	policyChanges  = "policy changes"
)

// Happening is something that goes wrong at a time, or that an admin does. Fields of other kinds are zero.
type Happening struct {
	At       Span            `json:"at"` // after the beginning
	Kind     string          `json:"kind"`
	Node     int             `json:"node,omitempty"`     // its number
	For      Span            `json:"for,omitempty"`      // until it is repaired, or until there is a new leader
	Reimaged bool            `json:"reimaged,omitempty"` // a failed node comes back with an empty disk
	GPU      int             `json:"gpu,omitempty"`      // its number on the node
	Keep     float64         `json:"keep,omitempty"`     // a falling leader: the part of what is on its way that is committed, 0..1
	Server   int             `json:"server,omitempty"`   // the next leader
	Skew     Span            `json:"skew,omitempty"`     // by which its clock is wrong
	Deadline Span            `json:"deadline,omitempty"` // of a drain, after At; 0: none
	Policy   *cluster.Policy `json:"policy,omitempty"`
}

func (h *Happening) validate() error {
	switch h.Kind {
	case nodeFails, agentRestarts, nodeCutOff, supervisorLost, gpuFails, leaderFalls, nodeDrained:
		if h.At < 0 || h.For < 0 || h.Deadline < 0 || h.GPU < 0 || h.Server < 0 || !(h.Keep >= 0 && h.Keep <= 1) {
			return fmt.Errorf("%s at %s: times and numbers must not be negative, and keep not above 1", h.Kind, time.Duration(h.At))
		}
		return nil
	case policyChanges:
		if h.Policy == nil {
			return fmt.Errorf("%s at %s: has no policy", h.Kind, time.Duration(h.At))
		}
		return h.Policy.Validate()
	}
	return fmt.Errorf("kind %q is none of those that there are", h.Kind)
}

// planFaults lets everything happen that the scenario has. What concerns a node that is not there does not.
func (w *world) planFaults(all []Happening) {
	byNumber := map[int]*agent{}
	for _, a := range w.agents {
		byNumber[a.is.Number] = a
	}
	for i := range all {
		h := &all[i]
		w.clock.at(genesis.Add(time.Duration(h.At)), func() {
			if !w.calm {
				w.strike(h, byNumber[h.Node])
			}
		})
	}
}

// strike lets one thing happen.
func (w *world) strike(h *Happening, a *agent) {
	switch h.Kind {
	case leaderFalls:
		if w.leader.up {
			w.faults.LeaderChanges++
			w.leader.fall(h)
		}
		return
	case policyChanges:
		w.admins.set(h.Policy, nil)
		return
	}
	if a == nil {
		return
	}
	switch h.Kind {
	case nodeFails:
		a.crash(time.Duration(h.For), h.Reimaged)
	case agentRestarts:
		a.restart(time.Duration(h.For))
	case nodeCutOff:
		a.partition(time.Duration(h.For))
	case supervisorLost:
		a.loseSupervisor()
	case gpuFails:
		a.breakGPU(h.GPU, time.Duration(h.For))
	case nodeDrained:
		w.admins.drain(a, h)
	}
}

// crash powers the machine off for a while: its workers are gone at once, and the journal knows it when the machine is back.
func (a *agent) crash(d time.Duration, reimaged bool) {
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
	w.clock.after(d, func() {
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
func (a *agent) restart(d time.Duration) {
	if !a.up {
		return
	}
	a.w.faults.AgentRestarts++
	a.w.note("the agent restarts", nil, a.i)
	a.up, a.desired = false, nil
	a.disconnect()
	process := a.process
	a.w.clock.after(d, func() {
		if a.powered && !a.up && a.process == process {
			a.begin()
		}
	})
}

// partition cuts the node off the servers for a while. Workers go on, and reach each other.
func (a *agent) partition(d time.Duration) {
	if a.cut {
		return
	}
	a.w.faults.Partitions++
	a.w.note("the node is cut off", nil, a.i)
	a.cut = true
	a.disconnect()
	a.w.clock.after(d, a.rejoin)
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

// breakGPU makes one GPU unfit for new jobs for a while; what runs on it goes on.
func (a *agent) breakGPU(gpu int, d time.Duration) {
	if gpu >= a.is.GPUs || a.broken[gpu] {
		return
	}
	a.w.faults.GPUFailures++
	a.w.note(fmt.Sprintf("GPU %d fails", gpu), nil, a.i)
	a.broken[gpu] = true
	a.disconnect() // the next hello says it
	a.w.clock.after(d, func() { a.mend(gpu) })
}

func (a *agent) mend(gpu int) {
	if !a.broken[gpu] {
		return
	}
	a.w.note(fmt.Sprintf("GPU %d works again", gpu), nil, a.i)
	delete(a.broken, gpu)
	a.disconnect()
}

// heal repairs whatever is wrong with the node.
func (a *agent) heal() {
	for gpu := range a.is.GPUs {
		a.mend(gpu)
	}
	a.rejoin()
	if !a.powered {
		a.boot(false)
	}
	if !a.up {
		a.begin()
	}
}

// Add adds up counts.
func (c *FaultCounts) Add(o *FaultCounts) {
	mine, theirs := c.each(), o.each()
	for i := range mine {
		*mine[i].n += *theirs[i].n
	}
}

// Words are the counts in a sentence.
func (c *FaultCounts) Words() string {
	var words []string
	for _, x := range c.each() {
		words = append(words, fmt.Sprintf("%d %s", *x.n, x.name))
	}
	return strings.Join(words, ", ")
}

type faultCount struct {
	name string
	n    *int
}

func (c *FaultCounts) each() []faultCount {
	return []faultCount{
		{"node failures", &c.NodeFailures},
		{"of them with a new disk", &c.Reimaged},
		{"agent restarts", &c.AgentRestarts},
		{"partitions", &c.Partitions},
		{"supervisors lost", &c.SupervisorsLost},
		{"GPU failures", &c.GPUFailures},
		{"leader changes", &c.LeaderChanges},
		{"drains", &c.Drains},
		{"policy changes", &c.PolicyChanges},
		{"worker failures", &c.WorkerFailures},
		{"reports lost", &c.ReportsLost},
		{"reports repeated", &c.ReportsRepeated},
		{"orders repeated", &c.OrdersRepeated},
		{"submissions repeated", &c.SubmitsRepeated},
		{"submissions retried", &c.SubmitsRetried},
		{"cancels", &c.Cancels},
	}
}
