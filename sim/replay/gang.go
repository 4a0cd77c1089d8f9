package replay

import (
	"math"
	"time"

	"github.com/gangline/gangline/checkpoint"
	"github.com/gangline/gangline/nodeagent/reconcile"
	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// phase is where a gang physically is.
type phase uint8

const (
	launching  phase = iota // not all processes run
	warming                 // they meet and load
	training                // with pauses for checkpoints
	savingLast              // it was warned, and writes a last checkpoint
	halting                 // its processes end because they were asked to
	hanging                 // a rank is gone; those left wait
	finished                // the work is done; its processes end
)

// gang is one epoch of a job as it physically runs.
type gang struct {
	job     *work
	id      cluster.JobID
	epoch   cluster.Epoch
	milli   int64 // of GPUs, in thousandths
	workers []*worker
	speed   float64 // of the job with these GPUs; with those of the trace it is 1

	phase   phase
	turn    uint32 // goes up whenever it leaves a phase before its end
	since   cluster.Time
	pauseAt cluster.Time // while training: when the next checkpoint begins, 0: none does
	billed  cluster.Time
	meter   *meter        // its queue's
	every   time.Duration // of training between two checkpoints; 0: it writes none of itself
	settled bool          // the state's epoch is over
}

// worker is one process of a gang.
type worker struct {
	gang    *gang
	machine *machine
	rank    cluster.Rank
	gpus    []string
	state   workerState
	stop    *reconcile.Stop // what it was told
	step    int64           // of the newest checkpoint that it wrote, in milliseconds of work; rank 0 only

	// How it ended.
	end      cluster.WorkerState
	code     int32
	signal   int32
	peerLost bool
	told     bool // to the leader
}

type workerState uint8

const (
	assigned  workerState = iota // its machine does not know of it
	starting                     // being launched
	underway                     // its process runs
	workerEnd                    // it has ended
)

func (wk *worker) alive() bool { return wk.state == starting || wk.state == underway }

func (wk *worker) key() reconcile.Key {
	return reconcile.Key{Job: uint64(wk.gang.id), Epoch: uint64(wk.gang.epoch), Rank: int(wk.rank)}
}

// start lets the machines of a new epoch launch its processes. One that its agent cannot be told of waits for the agent.
func (r *reality) start(j *cluster.Job, wk *work) {
	g := &gang{job: wk, id: j.ID, epoch: j.Epoch, billed: r.w.now, since: r.w.now}
	wk.gang = g
	for i := range j.Workers {
		m := r.byNode[j.Workers[i].Node]
		one := &worker{gang: g, machine: m, rank: j.Workers[i].Rank, gpus: j.Workers[i].GPUs}
		g.workers = append(g.workers, one)
		g.milli += int64(len(one.gpus)) * int64(wk.milli)
		if m.heardOf() && m.room(one) {
			m.launch(one)
		} else {
			m.behind = true
		}
	}
	g.speed = r.c.Elastic.speed(float64(g.milli) / float64(int64(wk.gpus)*int64(wk.milli)))
	a := r.w.attemptOf(j.ID)
	g.meter = &r.w.tally.of(a.job.Queue).meter
	a.began, a.epoch = r.w.now, j.Epoch
	if a.first == 0 {
		a.first = r.w.now
	}
	r.w.running++
	r.after(r.launchTime(g), happening{what: gangLaunched, gang: g})
}

func (r *reality) launchTime(g *gang) time.Duration {
	return spread(r.chance.of(streamLaunch, g.id, g.epoch), r.c.Start.Launch, r.c.Start.Spread)
}

// launched is when the processes run that were launched together.
func (r *reality) launched(g *gang) {
	for _, wk := range g.workers {
		if wk.state == starting {
			wk.state = underway
			wk.machine.changed()
		}
	}
	r.maybeWarm(g)
}

// launchedOne is when a process runs that was launched later than its peers.
func (r *reality) launchedOne(wk *worker) {
	if wk.state == starting {
		wk.state = underway
		wk.machine.changed()
		r.maybeWarm(wk.gang)
	}
}

// maybeWarm begins the warm-up once all processes run.
func (r *reality) maybeWarm(g *gang) {
	if g.phase != launching {
		return
	}
	for _, wk := range g.workers {
		if wk.state != underway {
			return
		}
	}
	g.phase = warming
	d := r.c.Start.Warmup
	if g.epoch > 1 {
		d += r.c.Start.Restart
	}
	r.after(spread(r.chance.of(streamWarmup, g.id, g.epoch), d, r.c.Start.Spread), happening{what: gangWarm, gang: g})
}

// train is the first training step.
func (r *reality) train(g *gang) {
	r.close(g)
	g.phase = training
	g.every = r.saveEvery(g)
	r.stretch(g)
}

// saveEvery is how long a gang trains between two checkpoints.
func (r *reality) saveEvery(g *gang) time.Duration {
	every := r.c.Checkpoint.Interval
	switch {
	case !g.job.writes:
		return 0
	case every != Auto:
		return every
	}
	machines, racks := map[*machine]bool{}, map[int]bool{}
	perDay := 0.0
	for _, wk := range g.workers {
		if m := wk.machine; !machines[m] {
			machines[m] = true
			perDay += r.c.Nodes.PerDay
			if m.rack >= 0 && !racks[m.rack] {
				racks[m.rack] = true
				perDay += r.c.Racks.PerDay
			}
		}
		perDay += float64(float64(len(wk.gpus)) * (r.c.GPUs.PerDay + r.c.Workers.PerDay))
	}
	if perDay == 0 {
		return 0 // nothing fails: it is warned
	}
	return max(checkpoint.Interval(r.c.Checkpoint.Cost, time.Duration(86400/perDay*float64(time.Second)), 0), time.Second)
}

// stretch plans training until the next checkpoint, or to the end of the work.
func (r *reality) stretch(g *gang) {
	left := time.Duration(math.Ceil(float64(g.job.length-g.job.saved) / g.speed))
	g.since, g.pauseAt = r.w.now, 0
	if g.every > 0 && left > g.every {
		g.pauseAt = r.w.now.Add(g.every)
		r.after(g.every+r.c.Checkpoint.Cost, happening{what: gangSaved, gang: g})
		return
	}
	r.after(left, happening{what: gangDone, gang: g})
}

// worked is the end of the training since the last checkpoint.
func (g *gang) worked(now cluster.Time) cluster.Time {
	if g.pauseAt != 0 {
		now = min(now, g.pauseAt)
	}
	return max(now, g.since)
}

// keep makes the work since the last checkpoint safe, and bills it. A job that the scheduler has started again in a
// newer epoch refuses it: its checkpoints are fenced.
func (r *reality) keep(g *gang) {
	until := g.worked(r.w.now)
	if g.job.gang == g {
		g.job.saved = min(g.job.length, g.job.saved+time.Duration(float64(until.Sub(g.since))*g.speed))
	}
	r.bill(g, useful, until)
}

// saved is the end of a checkpoint, and of the pause for it.
func (r *reality) saved(g *gang) {
	r.keep(g)
	r.bill(g, checkpointing, r.w.now)
	g.told()
	r.stretch(g)
}

// told lets rank 0 report the newest checkpoint.
func (g *gang) told() {
	for _, wk := range g.workers {
		if wk.rank == 0 && wk.state == underway {
			wk.step = g.job.saved.Milliseconds()
			wk.machine.changed()
		}
	}
}

// done is the end of the work.
func (r *reality) done(g *gang) {
	r.keep(g)
	if g.job.gang == g {
		g.job.saved = g.job.length // whatever rounding has left
	}
	g.phase = finished
	r.after(r.c.Stop.Exit, happening{what: gangExits, gang: g})
}

// close bills a gang's time until now by the phase that it leaves, or goes on in. Work that no checkpoint has is lost.
func (r *reality) close(g *gang) {
	c := hung
	switch g.phase {
	case launching, warming:
		if c = startingUp; g.epoch > 1 {
			c = restarting
		}
	case training, savingLast:
		r.bill(g, repeated, g.worked(r.w.now))
		c = checkpointing
	case halting:
		c = stopping
	case finished:
		c = ending
	case hanging:
	}
	r.bill(g, c, r.w.now)
}

// order lets the agents of a stopping job know how its workers are to stop.
func (r *reality) order(g *gang) {
	var stop *control.Stop
	var told []*worker
	for _, wk := range g.workers {
		switch {
		case wk.state == workerEnd:
		case !wk.machine.heardOf():
			wk.machine.behind = true
		default:
			if stop == nil {
				stop = r.stopOn(wk)
			}
			told = append(told, wk)
		}
	}
	if stop != nil {
		r.halt(g, told, reconcile.Stop{Why: stop.Reason, Warn: stop.Warn, Grace: stop.Grace})
	}
}

// stopOn is the stop in the order of a worker's node. It is the same on all nodes of the gang.
func (r *reality) stopOn(wk *worker) *control.Stop {
	o, _ := control.OrderFor(&r.w.state, wk.machine.node.ID, nil)
	for i := range o.Assignments {
		if a := &o.Assignments[i]; a.Job.ID == wk.gang.id {
			return a.Stop
		}
	}
	return nil
}

// halt asks processes of one gang to end.
func (r *reality) halt(g *gang, told []*worker, stop reconcile.Stop) {
	for _, wk := range told {
		wk.stop = &stop
		if wk.state == assigned { // its stop came before its launch: the agent declines
			wk.machine.workers = append(wk.machine.workers, wk)
			wk.machine.ended(wk, cluster.WorkerExited, 0, sigTerm, false)
		}
	}
	alive, asked := 0, 0
	for _, wk := range g.workers {
		if wk.alive() {
			alive++
			if wk.stop != nil {
				asked++
			}
		}
	}
	if g.phase == finished || asked == 0 {
		return
	}
	warned, c := stop.Warn > 0, &r.c.Checkpoint
	until := r.c.Stop.Exit
	if heeds := g.job.writes; warned && !heeds {
		until += stop.Warn
	}
	switch {
	case g.phase == training && warned && g.job.writes && asked == alive && c.Cost <= stop.Warn+stop.Grace:
		g.turn++
		g.phase = savingLast
		if g.pauseAt == 0 || g.pauseAt > r.w.now {
			g.pauseAt = r.w.now
		} // else the one under way will do
		r.after(g.pauseAt.Add(c.Cost).Sub(r.w.now), happening{what: gangSavedLast, gang: g})
		return
	case g.phase == training && warned && g.job.writes:
		until = stop.Warn + stop.Grace // it tries to save, and is killed over it
	}
	r.close(g)
	g.turn++
	g.phase = halting
	r.after(until, happening{what: gangExits, gang: g})
}

// savedLast is the end of a checkpoint that a warning asked for.
func (r *reality) savedLast(g *gang) {
	r.keep(g)
	r.close(g)
	g.told()
	g.phase = halting
	r.after(r.c.Stop.Exit, happening{what: gangExits, gang: g})
}

const sigTerm int32 = 15

// exits is the end of the processes that were asked to, or whose work is done. Those left see that they are alone.
func (r *reality) exits(g *gang) {
	rest := false
	for _, wk := range g.workers {
		switch {
		case !wk.alive():
		case g.phase == finished:
			wk.machine.ended(wk, cluster.WorkerExited, 0, 0, false)
		case wk.stop != nil:
			wk.machine.ended(wk, cluster.WorkerExited, 0, sigTerm, false)
		default:
			rest = true
		}
	}
	if rest {
		r.after(r.c.Notice, happening{what: peersExit, gang: g})
	}
}

// left is called when a worker has gone for another reason than its gang's end: the others hang until they notice.
func (r *reality) left(g *gang) {
	if g.phase == halting || g.phase == finished || g.phase == hanging {
		return
	}
	r.failures.Hit++
	r.close(g)
	g.turn++
	g.phase = hanging
	r.after(r.c.Notice, happening{what: peersExit, gang: g})
}

// peersExit ends the ranks that have seen that a peer is gone.
func (r *reality) peersExit(g *gang) {
	for _, wk := range g.workers {
		if wk.alive() {
			wk.machine.ended(wk, cluster.WorkerExited, 1, 0, true)
		}
	}
}
