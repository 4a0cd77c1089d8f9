package replay

import (
	"fmt"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
	"github.com/gangline/gangline/sim/trace"
)

// reality is what physically is in a replay with conditions: machines, agents and the processes of jobs, whatever the
// state believes of them. It decides nothing. What it knows reaches the state as agents' reports (control.News and
// RegisterNode), a silent node is lost when control says so, and agents do what their orders say.
type reality struct {
	w        *world
	c        *Conditions
	chance   *chance
	agenda   agenda
	machines []*machine
	byNode   map[cluster.NodeID]*machine
	racks    [][]*machine
	gpus     []int32 // of all machines up to each one
	work     map[cluster.JobID]*work
	holders  map[string]int32 // thousandths of each GPU that living processes use

	leading  bool
	rose     cluster.Time // the present leader
	silent   []*machine   // not heard of, in the order in which they fell silent
	waiting  []*attempt   // jobs whose submission waits for a leader
	failures Failures
	broken   error // a rule that reality broke
}

// work is one job as its processes see it: what is done of it and saved.
type work struct {
	length time.Duration // with the GPUs of the trace
	gpus   int32         // of the trace
	milli  int32         // of each
	saved  time.Duration // of length, in its newest checkpoint
	writes bool          // it writes checkpoints and heeds warnings
	gang   *gang         // its newest epoch, or nil
	state  cluster.JobState
}

func newReality(w *world, nodes []trace.Node) *reality {
	c := w.cfg.Conditions
	r := &reality{
		w: w, c: c, chance: newChance(w.cfg.Seed), byNode: map[cluster.NodeID]*machine{}, work: map[cluster.JobID]*work{},
		holders: map[string]int32{}, leading: true, rose: w.now,
	}
	racks := map[string]int{}
	all := int32(0)
	for i := range nodes {
		m := newMachine(r, register(&nodes[i], i), i)
		r.machines = append(r.machines, m)
		r.byNode[m.node.ID] = m
		all += int32(len(m.node.GPUs)) //nolint:gosec // far fewer
		r.gpus = append(r.gpus, all)
		name := nodes[i].Rack
		if name == "" && c.RackNodes > 0 {
			name = fmt.Sprintf("nameless %d", i/c.RackNodes)
		}
		if name == "" {
			continue
		}
		at, known := racks[name]
		if !known {
			at = len(r.racks)
			racks[name] = at
			r.racks = append(r.racks, nil)
		}
		r.racks[at] = append(r.racks[at], m)
		m.rack = at
	}
	for k := range faultKinds {
		r.planStrike(k)
	}
	return r
}

// next is when something happens, or a lease runs out; 0: never.
func (r *reality) next() cluster.Time {
	at := r.agenda.next()
	if !r.leading {
		return at
	}
	for _, m := range r.silent {
		if until := r.lease(m); (at == 0 || until < at) && r.ready(m) {
			at = until
		}
	}
	return at
}

// play lets everything happen that is due.
func (r *reality) play() {
	for len(r.agenda.list) > 0 && r.agenda.list[0].at <= r.w.now {
		h := r.agenda.take()
		r.w.fired++
		r.happen(&h)
	}
}

func (r *reality) happen(h *happening) {
	if g := h.gang; g != nil && h.turn != g.turn {
		return
	}
	switch h.what {
	case gangLaunched:
		r.launched(h.gang)
	case oneLaunched:
		r.launchedOne(h.one)
	case gangWarm:
		r.train(h.gang)
	case gangSaved:
		r.saved(h.gang)
	case gangSavedLast:
		r.savedLast(h.gang)
	case gangDone:
		r.done(h.gang)
	case gangExits:
		r.exits(h.gang)
	case peersExit:
		r.peersExit(h.gang)
	case reportComes:
		r.reportComes(r.machines[h.node])
	case faultStrikes:
		r.strike(h.kind)
	case nodeBack:
		r.nodeBack(r.machines[h.node])
	case gpuBack:
		r.gpuBack(r.machines[h.node], int(h.gpu))
	case agentBack:
		r.agentBack(r.machines[h.node])
	case leaderRises:
		r.rise()
	}
}

// after plans a happening.
func (r *reality) after(d time.Duration, h happening) {
	h.at = r.w.now.Add(d)
	if h.gang != nil {
		h.turn = h.gang.turn
	}
	r.agenda.add(h)
}

// lease is until when a silent machine is believed alive: a new leader grants all of them a full lease first.
func (r *reality) lease(m *machine) cluster.Time { return max(m.heard, r.rose).Add(r.c.Lease) }

// ready reports whether the state believes a machine alive.
func (r *reality) ready(m *machine) bool {
	n := r.w.state.Node(m.node.ID)
	return n != nil && n.State == cluster.NodeReady
}

// leases says until when nodes are believed alive, or nil: none is to be judged. Nodes that are heard have full leases,
// and those of others that have time left say as little; so there are none but those that have run out.
func (r *reality) leases() control.Leases {
	var due control.Leases
	for _, m := range r.silent {
		if until := r.lease(m); until <= r.w.now && r.ready(m) {
			if due == nil {
				due = control.Leases{}
			}
			due[m.node.ID] = until
		}
	}
	return due
}

// changed looks at what a command has changed: a job that starts, is to stop, or has ended an epoch.
func (r *reality) changed(changes []cluster.Change) {
	for i := range changes {
		if id := changes[i].Job; id != 0 {
			r.jobChanged(id)
		}
		if m := r.byNode[changes[i].Node]; m != nil {
			was := m.lost
			if m.lost = !r.ready(m); m.lost && !was {
				r.failures.NodesLost++
			}
		}
	}
}

func (r *reality) jobChanged(id cluster.JobID) {
	j := r.w.state.Job(id)
	wk := r.work[id]
	if j == nil || wk == nil && j.State != cluster.Starting {
		return
	}
	if wk == nil {
		wk = r.newWork(id)
	}
	was := wk.state
	if r.w.cfg.Check && was != 0 && was != j.State && !cluster.Legal(was, j.State) {
		r.breakRule("job %d went from %s to %s", id, was, j.State)
	}
	wk.state = j.State
	g := wk.gang
	switch {
	case j.State == cluster.Starting && (g == nil || g.epoch < j.Epoch):
		r.start(j, wk)
	case j.State == cluster.Stopping && was != cluster.Stopping && g != nil:
		r.order(g)
	case !j.State.Holding() && was.Holding() && g != nil:
		r.settle(g, j)
	}
	if j.State.Final() {
		delete(r.work, id)
	}
}

func (r *reality) newWork(id cluster.JobID) *work {
	a := r.w.attemptOf(id)
	wk := &work{
		length: a.job.Length, gpus: a.job.GPUs, milli: a.job.Milli, state: cluster.Pending,
		writes: r.chance.picks(streamWrites, id, r.c.Checkpoint.Jobs),
	}
	r.work[id] = wk
	return wk
}

// settle takes note of an epoch's end, as the state has it.
func (r *reality) settle(g *gang, j *cluster.Job) {
	r.close(g)
	g.settled = true
	r.w.running--
	a := r.w.attemptOf(g.id)
	a.began = 0
	switch {
	case j.State == cluster.Succeeded:
		r.w.finished(a)
	case j.State.Final():
		a.failed = r.w.now
		r.w.crowd.leave(r.w.now)
		r.w.tally.fail(a)
		r.w.eyes.outcome(a)
		r.w.jobs.Set(a.id, nil)
	case j.Stop == cluster.StopPreempt:
		a.stops++
	case j.Stop == cluster.StopResize:
		r.failures.Resizes++
	case j.Stop == cluster.StopMove, j.Stop == cluster.StopDrain:
	case j.Blamed:
		r.failures.Retries++
	default:
		r.failures.Requeues++
	}
}

// breakRule remembers the first rule that was broken.
func (r *reality) breakRule(format string, args ...any) {
	if r.broken == nil {
		r.broken = fmt.Errorf("a rule is broken at %s: %s", r.w.since(), fmt.Sprintf(format, args...))
	}
}

// over reports whether nothing is left that jobs wait for.
func (r *reality) over() bool {
	return len(r.waiting) == 0 && r.w.running == 0 && r.w.state.Count(cluster.Pending) == 0
}

// elastic reports whether the job that is being submitted is elastic.
func (r *reality) elastic(j *trace.Job) bool {
	id := cluster.JobID(r.w.taken + 1) //nolint:gosec // counts jobs
	return j.Milli == cluster.WholeGPU && r.chance.picks(streamElastic, id, r.c.Elastic.Jobs)
}

// shape gives a job's spec what the conditions say of it.
func (r *reality) shape(s *cluster.JobSpec, elastic bool) {
	s.Warn, s.Grace, s.Retries = r.c.Stop.Warn, r.c.Stop.Grace, int32(r.c.Retries) //nolint:gosec // at most cluster.MaxRetries
	if !elastic {
		return
	}
	e, all := &r.c.Elastic, int32(1)
	if n := len(r.gpus); n > 0 {
		all = r.gpus[n-1]
	}
	asked := float64(s.GPUs)
	least := max(1, int32(asked*e.Min))
	s.GPUs = max(s.GPUs, min(int32(asked*e.Max), all, cluster.MaxGPUs))
	if least < s.GPUs {
		s.MinGPUs, s.GPUsPerNode = least, 0
	}
}

// settled checks what must be true once nothing is left to happen: every job that the cluster took has ended.
func (r *reality) settled() error {
	if !r.w.cfg.Check || r.w.cfg.Until > 0 {
		return nil
	}
	late := 0
	first := cluster.JobID(0)
	r.w.state.EachPending(func(j *cluster.Job) bool {
		if late++; first == 0 {
			first = j.ID
		}
		return true
	})
	if late > 0 {
		return fmt.Errorf("not live: at %s %d jobs wait although nothing runs and nothing changes, the first is job %d: %s",
			r.w.since(), late, first, r.w.state.Job(first).Reason)
	}
	return nil
}

// addTo adds the failures of a part to a report, up to now.
func (r *reality) addTo(rep *Report) {
	for _, m := range r.machines {
		m.bill()
	}
	r.w.state.EachHolding(func(j *cluster.Job) bool {
		if wk := r.work[j.ID]; wk != nil && wk.gang != nil {
			r.close(wk.gang)
		}
		return true
	})
	if rep.Failures == nil {
		rep.Failures = &Failures{}
	}
	rep.Failures.add(&r.failures)
}
