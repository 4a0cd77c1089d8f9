package forecast

import (
	"container/heap"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/control"
)

// horizon is how far a run looks ahead.
const horizon = 14 * 24 * time.Hour

// stillFrom is from how many running jobs on a run leaves them at their places in
// the order: to move them as they get service would take half of its time.
const stillFrom = 500

// Units of work, each about a microsecond on a core of the machines that this
// is built on. Counts are bounded instead of time, so that equal questions have
// equal answers.
const (
	workPerNode     = 2 // setting up a run
	workPerHolder   = 6
	workPerWaiter   = 4
	workPerStep     = 40
	workPerCommand  = 40
	workPerPlace    = 2 // each node of a gang that starts or ends, and each eighth of its workers
	thoroughNodes   = 4 // nodes that a thorough step looks at for one unit
	thoroughHolders = 3
)

// world is a fork of the state that runs forward.
type world struct {
	s       *cluster.State
	st      *control.Stepper
	lengths *lengths
	run     int
	began   cluster.Time
	now     cluster.Time
	ends    endHeap
	left    int64 // work
	pace    pace
	look    bool // something is due that only a thorough step sees
	never   bool // the job in question will not start in this run

	// Of a course only, see Course.
	horizon  time.Duration
	arrivals *arrivals
	seen     func(cluster.Time, *cluster.Job)
}

// pace is how often a run looks thoroughly: at least every floor, and more
// seldom the further ahead it is, so that a long run costs little more than a
// short one. Starts that only a thorough step makes are then late by at most
// that part of the wait.
type pace struct {
	floor time.Duration
	part  int64 // of the time since the run's beginning, 1/part; 0: floor only
}

func (p pace) at(since time.Duration) time.Duration {
	if p.part == 0 {
		return p.floor
	}
	return max(p.floor, since/time.Duration(p.part))
}

// ending is when the workers of a job's epoch are gone, or, without a job, when
// a time limit or a reservation is due.
type ending struct {
	at    cluster.Time
	job   cluster.JobID
	epoch cluster.Epoch
	stop  bool // it was asked to stop; else its end comes of itself
}

type endHeap []ending

func (h endHeap) Len() int { return len(h) }
func (h endHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].job < h[j].job
}
func (h endHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push is heap.Interface's.
func (h *endHeap) Push(v any) { *h = append(*h, v.(ending)) }

// Pop is heap.Interface's.
func (h *endHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// setupCost is what it takes to begin a run on a state.
func setupCost(s *cluster.State, waiting int) int64 {
	holding := holders(s)
	return int64(s.Nodes()*workPerNode + holding*workPerHolder + waiting*workPerWaiter)
}

// thoroughCost is what one thorough step takes.
func thoroughCost(s *cluster.State) int64 {
	return int64(workPerStep + s.Nodes()/thoroughNodes + holders(s)/thoroughHolders)
}

// holders is how many jobs hold GPUs.
func holders(s *cluster.State) int {
	return s.Count(cluster.Starting) + s.Count(cluster.Running) + s.Count(cluster.Stopping)
}

// paceFor spends about a third of some work on thorough steps.
func paceFor(s *cluster.State, cfg control.Config, work int64) pace {
	if cfg.Planner.Length != nil {
		return pace{floor: cfg.Thorough} // the simulator asks for what will be
	}
	steps := max(work/3/thoroughCost(s), 1)
	return pace{
		floor: max(cfg.Thorough, min(10*time.Minute/time.Duration(steps), 5*time.Minute)).Round(time.Second),
		part:  min(max(steps/14, 2), 1024), // 14 is about ln(horizon / floor)
	}
}

// newWorld begins a run on a fork, which it owns from here on.
func newWorld(fork *cluster.State, cfg control.Config, l *lengths, run int, now cluster.Time, work int64, p pace) *world {
	const never = 100 * 365 * 24 * time.Hour
	cfg.LaunchTimeout, cfg.ForgetLostNodes = never, never // launches and lost nodes are not foreseen
	cfg.KeepFinal = cluster.MaxLiveJobs
	w := &world{s: fork, st: control.NewStepper(cfg), lengths: l, run: run, began: now, now: now, left: work, pace: p, horizon: horizon}
	w.left -= setupCost(fork, fork.Count(cluster.Pending))
	if holders(fork) > stillFrom {
		fork.Still()
	}
	fork.EachHolding(func(j *cluster.Job) bool {
		w.plan(j)
		return true
	})
	for i := range fork.Policy().Windows {
		w.lookAt(fork.Policy().Windows[i].Start)
		w.lookAt(fork.Policy().Windows[i].End)
	}
	return w
}

// lookAt makes the run look thoroughly at a time, whatever its pace.
func (w *world) lookAt(at cluster.Time) {
	if at > w.now && w.pace.part > 0 {
		heap.Push(&w.ends, ending{at: at})
	}
}

// plan notes when a job that holds GPUs will be gone.
func (w *world) plan(j *cluster.Job) {
	e := ending{job: j.ID, epoch: j.Epoch}
	if j.State == cluster.Stopping {
		// It has been warned, saves what it has done and exits, as most do long
		// before they are killed.
		e.at, e.stop = w.now.Add(j.Spec.Warn), true
		heap.Push(&w.ends, e)
		return
	}
	if j.Spec.TimeLimit > 0 {
		w.lookAt(j.StartedAt.Add(j.Spec.TimeLimit))
	}
	total, ends := w.arrivals.total(j.ID)
	if !ends {
		total, ends = w.lengths.total(j, w.run)
	}
	rate := int64(j.Held()) * int64(j.Spec.Share())
	if !ends || rate == 0 {
		return
	}
	// What a start costs does not count as service: what an hour lacks of one.
	hour := j.AttainedAt(j.StartedAt.Add(time.Hour)) - j.Attained
	start := time.Hour - time.Duration(hour/rate)*time.Millisecond
	e.at = j.StartedAt
	if need := total - j.Attained; need > 0 {
		e.at = e.at.Add(start + time.Duration((need+rate-1)/rate)*time.Millisecond)
	}
	e.at = max(e.at, w.now)
	heap.Push(&w.ends, e)
}

// until runs forward until a job has started, or, as without a job (0), until
// nothing more is to be learned: the horizon is reached, the work is done, or
// nothing more happens.
func (w *world) until(target cluster.JobID) (started bool) {
	thorough := w.now // when the last thorough step was
	w.look = true
	for {
		step := w.pace.at(w.now.Sub(w.began))
		w.left -= workPerStep
		w.st.Pace(step)
		if w.look || w.now.Sub(thorough) >= step {
			thorough = w.now
			w.left -= thoroughCost(w.s)
			if w.pace.part > 0 {
				w.st.Pace(0)
			}
		}
		w.look = false
		cmds, next := w.st.Step(w.s, nil, w.now)
		if w.enact(cmds, target) {
			return true
		}
		if j := w.s.Job(target); target != 0 && (j == nil || j.State.Final()) {
			w.never = true
			return false
		}
		at := cluster.Time(0)
		if next != 0 {
			at = max(next, w.now.Add(time.Millisecond))
			if w.pace.part > 0 && (len(cmds) == 0 || thorough == w.now) {
				at = max(at, w.now.Add(step))
			}
		}
		if due, ok := w.nextEnd(); ok && (at == 0 || due < at) {
			at = due
		}
		if due, ok := w.arrivals.next(); ok && (at == 0 || due < at) {
			at = due
		}
		if at == 0 || w.left <= 0 {
			return false
		}
		if at > w.began.Add(w.horizon) {
			w.now = w.began.Add(w.horizon)
			return false
		}
		w.now = max(w.now, at)
		w.endDue()
		w.arrive()
	}
}

// stuck reports whether nothing is due any more.
func (w *world) stuck() bool { return len(w.ends) == 0 }

// enact applies what the stepper says, and reports whether the target started.
// Why others wait is not written down, but where all is to be as it will be.
func (w *world) enact(cmds []cluster.Command, target cluster.JobID) bool {
	for _, cmd := range cmds {
		if _, ok := cmd.(*cluster.ExplainJobs); ok && w.pace.part > 0 {
			continue
		}
		w.left -= workPerCommand
		if e, ok := cmd.(*cluster.EvictJob); ok && e.Cause == cluster.StopTimeLimit && w.s.Followed(w.s.Job(e.Job)) {
			// Most end well before their limit, which is all that is known: others wait for that.
			w.report(w.s.Job(e.Job), cluster.WorkerExited)
			w.lookAt(w.now.Add(time.Millisecond))
			continue
		}
		if r := w.apply(cmd); r.Code != cluster.OK {
			continue
		}
		switch c := cmd.(type) {
		case *cluster.StartJob:
			if c.Job == target {
				return true
			}
			j := w.s.Job(c.Job)
			w.left -= placeCost(j)
			if j.Spec.Elastic() { // it may grow, but only once it runs
				w.report(j, cluster.WorkerRunning)
				j = w.s.Job(c.Job)
			}
			w.plan(j)
		case *cluster.EvictJob:
			w.plan(w.s.Job(c.Job))
		}
	}
	return false
}

func placeCost(j *cluster.Job) int64 {
	return int64(workPerPlace * (len(j.NodeRanks) + len(j.Workers)/8))
}

func (w *world) apply(cmd cluster.Command) cluster.Result {
	r := w.s.Apply(w.s.Index()+1, w.now, cmd)
	if w.seen != nil {
		for i := range r.Changes {
			if j := w.s.Job(r.Changes[i].Job); j != nil {
				w.seen(w.now, j)
			}
		}
	}
	return r
}

// nextEnd is when the next job ends, or something is due.
func (w *world) nextEnd() (cluster.Time, bool) {
	for len(w.ends) > 0 && w.stale(&w.ends[0]) {
		heap.Pop(&w.ends)
	}
	if len(w.ends) == 0 {
		return 0, false
	}
	return w.ends[0].at, true
}

// stale reports whether an ending is of an epoch that has ended otherwise.
func (w *world) stale(e *ending) bool {
	if e.job == 0 {
		return false
	}
	j := w.s.Job(e.job)
	return j == nil || !j.State.Holding() || j.Epoch != e.epoch || (j.State == cluster.Stopping) != e.stop
}

// endDue ends the jobs whose time has come.
func (w *world) endDue() {
	for len(w.ends) > 0 && w.ends[0].at <= w.now {
		e, _ := heap.Pop(&w.ends).(ending)
		if e.job == 0 {
			w.look = true
			continue
		}
		if w.stale(&e) {
			continue
		}
		j := w.s.Job(e.job)
		w.left -= workPerCommand + placeCost(j)
		w.report(j, cluster.WorkerExited)
	}
}

// report lets all workers of a job that have not ended be in a state.
func (w *world) report(j *cluster.Job, st cluster.WorkerState) {
	on := make(map[cluster.NodeID][]cluster.WorkerReport, len(j.NodeRanks))
	for i := range j.Workers {
		k := &j.Workers[i]
		if !k.State.Ended() {
			on[k.Node] = append(on[k.Node], cluster.WorkerReport{Job: j.ID, Epoch: j.Epoch, Rank: k.Rank, State: st})
		}
	}
	for _, id := range slices.Clone(j.NodeRanks) {
		w.apply(&cluster.ReportWorkers{Node: id, Workers: on[id]})
	}
}
