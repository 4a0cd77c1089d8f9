package replay

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
)

// faultKind is a kind of fault that strikes by itself.
type faultKind uint8

const (
	nodeFault faultKind = iota
	gpuFault
	workerFault
	rackFault
	agentFault
	leaderFault
	faultKinds
)

// rate is how often a kind strikes, and among how many things.
func (r *reality) rate(k faultKind) (*FaultRate, int) {
	gpus := 0
	if len(r.gpus) > 0 {
		gpus = int(r.gpus[len(r.gpus)-1])
	}
	switch k {
	case nodeFault:
		return &r.c.Nodes, len(r.machines)
	case gpuFault:
		return &r.c.GPUs, gpus
	case workerFault:
		return &r.c.Workers, gpus
	case rackFault:
		return &r.c.Racks, len(r.racks)
	case agentFault:
		return &r.c.Agents, len(r.machines)
	default:
		return &r.c.Leader, 1
	}
}

// planStrike lets a kind strike once more: a Poisson process over all things that it can strike.
func (r *reality) planStrike(k faultKind) {
	rate, things := r.rate(k)
	if perDay := rate.PerDay * float64(things); perDay > 0 {
		gap := time.Duration(min(r.chance.faults[k].ExpFloat64()/perDay, 36500) * float64(24*time.Hour)).Round(time.Microsecond)
		r.after(max(gap, time.Millisecond), happening{what: faultStrikes, kind: k})
	}
}

// strike draws whom a fault strikes and for how long, whatever goes on there, and lets it.
func (r *reality) strike(k faultKind) {
	rng := r.chance.faults[k]
	rate, things := r.rate(k)
	victim := rng.IntN(things)
	lasts := max(spread(rng, rate.Repair, rate.Spread), time.Millisecond)
	r.planStrike(k)
	until := r.w.now.Add(lasts)
	switch k {
	case nodeFault:
		r.failures.Nodes++
		r.machines[victim].dieUntil(until)
	case rackFault:
		r.failures.Racks++
		for _, m := range r.racks[victim] {
			r.failures.Nodes++
			m.dieUntil(until)
		}
	case gpuFault:
		r.failures.GPUs++
		m, gpu := r.gpuAt(victim)
		r.loseGPU(m, gpu, until)
	case workerFault:
		r.failures.Workers++
		m, gpu := r.gpuAt(victim)
		m.failOn(gpu)
	case agentFault:
		r.failures.AgentsAway++
		m := r.machines[victim]
		m.silence()
		m.awayUntil = max(m.awayUntil, until)
		r.after(m.awayUntil.Sub(r.w.now), happening{what: agentBack, node: m.index})
	default:
		r.failures.LeaderChanges++
		r.fall(lasts)
	}
}

// gpuAt is the machine and the index of a GPU among all.
func (r *reality) gpuAt(n int) (*machine, int) {
	i, found := slices.BinarySearch(r.gpus, int32(n)) //nolint:gosec // an index of a GPU
	if found {
		i++ // it is the first of the next machine that has any
	}
	for r.gpus[i] <= int32(n) { //nolint:gosec // as above
		i++
	}
	m := r.machines[i]
	return m, n - int(r.gpus[i]) + len(m.node.GPUs)
}

// failOn ends the processes that use a GPU.
func (m *machine) failOn(gpu int) {
	uuid := m.node.GPUs[gpu].UUID
	for _, wk := range slices.Clone(m.workers) {
		if wk.alive() && slices.Contains(wk.gpus, uuid) && wk.gang.phase != finished {
			m.ended(wk, cluster.WorkerExited, 1, 0, false)
			m.r.left(wk.gang)
		}
	}
}

// loseGPU takes a GPU out of use until it is repaired. The agent sees it and says so.
func (r *reality) loseGPU(m *machine, gpu int, until cluster.Time) {
	m.bill()
	m.failOn(gpu)
	m.sickUntil[gpu] = max(m.sickUntil[gpu], until)
	r.after(m.sickUntil[gpu].Sub(r.w.now), happening{what: gpuBack, node: m.index, gpu: int32(gpu)}) //nolint:gosec // a small index
	m.inventory(gpu, false, "failed")
}

// gpuBack is the end of a GPU's repair.
func (r *reality) gpuBack(m *machine, gpu int) {
	if m.sickUntil[gpu] == 0 || r.w.now < m.sickUntil[gpu] {
		return
	}
	m.bill()
	m.sickUntil[gpu] = 0
	m.inventory(gpu, true, "")
}

// inventory changes what the agent says of a GPU, and lets it say so.
func (m *machine) inventory(gpu int, healthy bool, reason string) {
	m.node.GPUs = slices.Clone(m.node.GPUs)
	m.node.GPUs[gpu].Healthy, m.node.GPUs[gpu].Reason = healthy, reason
	if m.heardOf() {
		m.connect()
	}
}

// fall takes the leader away. Submissions and reports wait for the next one.
func (r *reality) fall(d time.Duration) {
	if r.leading {
		r.leading = false
		r.after(d, happening{what: leaderRises})
	}
}

// rise is a new leader: its judgement begins anew, all nodes have a full lease, and agents and clients come to it.
func (r *reality) rise() {
	r.leading, r.rose = true, r.w.now
	r.w.sched = r.w.renew(r.w)
	for _, m := range r.machines {
		if m.present() {
			m.connect()
		}
	}
	waiting := r.waiting
	r.waiting = nil
	for _, a := range waiting {
		r.w.submit(a)
	}
}

// upTo draws an even time in 0..most for a message.
func (c *chance) upTo(most time.Duration) time.Duration { return upTo(c.reports, most) }

func upTo(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(most) + 1))
}
