package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// world is one run: everything there is, and the time in it.
type world struct {
	set      *Setting
	machines []Machine
	clock    clock
	net      *rand.Rand // delays of messages and starts
	luck     *luck
	servers  *servers
	leader   *leader
	agents   []*agent
	byNode   map[cluster.NodeID]*agent
	machine  *machine
	clients  *clients
	admins   *admins
	checks   *checker
	meter    meter
	faults   FaultCounts
	script   *Scenario
	trace    trace
	calm     bool // the horizon is past: nothing breaks any more
	failure  error

	minute      cluster.Time // when the present minute began, and how many events had fired by then
	minuteFired uint64

	// Planted bugs, for tests that prove that the checks can fail.
	tamper func(cluster.Command) cluster.Command // of what is proposed; nil drops it and says that it was done
	greedy bool                                  // agents launch without waiting for busy GPUs
}

// A run that goes round in circles ends when more events than these happen within one minute of virtual time. A busy
// minute has some hundreds for each node, and some tens for each job that arrives or ends.
const (
	busyPerNode = 2_000
	busyPerJob  = 100
)

// newWorld makes the world of a valid scenario, which it does not change.
func newWorld(sc *Scenario) *world {
	w := &world{
		set: &sc.Setting, machines: sc.Machines, script: sc, clock: newClock(), net: stream(sc.Seed, streamNet), luck: newLuck(sc),
		servers: newServers(sc.Setting.Servers), machine: newMachine(), byNode: map[cluster.NodeID]*agent{},
	}
	for i := range sc.Machines {
		w.agents = append(w.agents, newAgent(w, i, &sc.Machines[i]))
	}
	w.meter.world = w
	w.clients = newClients(w, jobsOf(sc))
	w.admins = &admins{w: w}
	w.checks = newChecker(w)
	w.leader = newLeader(w)
	return w
}

// run plays until all is done, or something is wrong.
func (w *world) run() error {
	w.leader.rise(0, time.Duration(w.set.Skew))
	for _, a := range w.agents {
		w.clock.after(w.upTo(time.Second), a.dial)
	}
	w.admins.begin(w.script.Policy, w.clients.begin)
	w.planFaults(w.script.Faults)
	w.clock.at(genesis.Add(time.Duration(w.set.Horizon)), w.becomeCalm)
	for w.failure == nil && !w.settled() {
		if !w.clock.next() {
			w.fail(errors.New("nothing is left to happen, and yet not all is done"))
		}
		w.watchForCircles()
	}
	if w.failure == nil {
		w.fail(w.checks.atEnd())
	}
	return w.failure
}

// watchForCircles fails a run in which time hardly moves any more.
func (w *world) watchForCircles() {
	if w.clock.now.Sub(w.minute) >= time.Minute {
		w.minute, w.minuteFired = w.clock.now, w.clock.fired
		return
	}
	limit := uint64(busyPerNode*(len(w.agents)+10) + busyPerJob*len(w.clients.jobs))
	if n := w.clock.fired - w.minuteFired; n > limit {
		w.fail(fmt.Errorf("it goes round in circles: %d events within a minute", n))
	}
}

// settled reports whether nothing is left to do: the faults are over, the jobs final, the machines idle, the clients silent.
func (w *world) settled() bool {
	return w.calm && w.clients.open == 0 && w.machine.alive == 0 && len(w.leader.queue) == 0 && w.leader.up && w.cleanedUp()
}

// cleanedUp reports whether the state agrees that the machines are idle. It is asked only once they are.
func (w *world) cleanedUp() bool {
	clean := true
	w.servers.state().EachNode(func(n *cluster.Node) bool {
		a := w.byNode[n.ID]
		current := a != nil && a.id == n.ID
		clean = len(n.Stale) == 0 && !n.Holds() && (n.State == cluster.NodeReady) == current
		return clean
	})
	return clean && w.servers.state().Nodes() >= len(w.agents)
}

// becomeCalm ends the faults, repairs everything, and sets the time by which all jobs must have ended.
func (w *world) becomeCalm() {
	w.calm = true
	for _, a := range w.agents {
		a.heal()
	}
	w.admins.becomeCalm()
	bound := w.clients.drainBound()
	w.note("faults are over", nil, -1)
	w.clock.after(bound, func() { w.fail(w.checks.notLive(bound)) })
}

// fail ends the run, unless it has ended already. A nil error does nothing.
func (w *world) fail(err error) {
	if err != nil && w.failure == nil {
		w.failure = err
	}
}

// commit puts commands into the log and lets everybody know what they did.
func (w *world) commit(at cluster.Time, cmds []cluster.Command) ([]cluster.Result, error) {
	var changed []cluster.Change
	results, err := w.servers.commit(at, cmds, w.net, func(c cluster.Command, apply func() cluster.Result) error {
		r := apply()
		changed = append(changed, r.Changes...)
		w.note("", c, -1)
		return w.checks.afterCommand(c, r)
	})
	if err != nil {
		return nil, err
	}
	for _, ch := range changed {
		w.leader.changed(ch)
	}
	return results, nil
}

// upTo is a random time from a tenth of most to most.
func (w *world) upTo(most time.Duration) time.Duration {
	return most/10 + time.Duration(w.net.Int64N(int64(most-most/10)+1))
}
