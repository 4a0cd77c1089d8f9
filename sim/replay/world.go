package replay

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// genesis is the virtual time at which every trace begins: 2026-01-01 00:00 UTC. Not zero, because the zero
// cluster.Time means "never".
const genesis = cluster.Time(1_767_225_600_000_000_000)

// rackLabel is where the default policy's topology looks for a node's rack.
const rackLabel = "topology.gangline.dev/rack"

// attempt is a job of the trace and what has become of it. It is forgotten once it has ended.
type attempt struct {
	arrival
	class   *class
	nth     int64 // of those that came, from 0
	id      cluster.JobID
	left    time.Duration // work to do, without restart costs
	owed    time.Duration // restart cost that the next epoch begins with
	held    int64         // GPUs of the present epoch, in thousandths
	epoch   cluster.Epoch // the present one, or the last
	workers []cluster.Worker
	began   cluster.Time // the present epoch; 0: it holds nothing
	worked  span         // work done in the present epoch, as far as it is known
	ended   cluster.Time // 0: not yet
	stops   int32        // epochs that were stopped for another job
	first   cluster.Time // its first epoch began; 0: never
	crowd   float64      // of the world's crowd, when it was submitted
	rho     float64      // its finish-time fairness, once it has ended
	stopped bool         // the present epoch
	refused bool
	failed  cluster.Time // for good, of failures; 0: not
}

// world is a cluster that obeys: nodes that never fail, and agents that answer in no time.
type world struct {
	cfg      *Config
	state    cluster.State
	index    uint64
	now      cluster.Time
	sched    scheduler
	renew    func(*world) scheduler // makes sched anew
	real     *reality               // with conditions; else agents obey at once
	jobs     cluster.Roll[*attempt] // those that were submitted and have not ended
	spare    []*attempt             // that have ended, and of which nobody knows
	tally    *tally
	seen     int64        // jobs that came, whatever became of them
	taken    int64        // of these, what the state took: their numbers are 1, 2 and so on
	end      cluster.Time // of the last job that has ended
	arriving *attempt     // it is being submitted
	wake     cluster.Time // when to look again if nothing else happens; 0: not
	idle     int          // looks in which nothing happened
	busy     cluster.Time // when that was last not so
	over     bool         // Until has passed
	events   heap
	seq      uint64
	fired    uint64
	classes  map[shape]*class
	largest  int32 // most GPUs of one node
	capacity int64 // GPUs of all nodes
	meter    meter
	crowd    crowd
	eyes     *observer // nil: nobody looks
	running  int
	stopped  bool                  // by who looks
	rejected int                   // commands of the scheduler that the state refused
	report   cluster.ReportWorkers // reused: Apply keeps nothing of it
	one      [1]cluster.WorkerReport

	submission cluster.SubmitJob // likewise
}

// maxClasses bounds what is kept for jobs that are alike.
const maxClasses = 1 << 16

// class is what jobs that are alike share.
type class struct {
	spec    *cluster.JobSpec
	figures *figures // of their queue
}

// shape is what jobs that are alike have in common.
type shape struct {
	queue, types string
	gpus, milli  int32
	cpu, mem     int64
	elastic      bool
}

func newWorld(cfg *Config, queues []string, nodes []trace.Node) (*world, error) {
	policy, err := cfg.policy(queues, nodes)
	if err != nil {
		return nil, err
	}
	w := &world{
		cfg: cfg, now: genesis, end: genesis, capacity: trace.Capacity(nodes),
		classes: map[shape]*class{},
	}
	commands := []cluster.Command{
		&cluster.Init{ClusterID: "replay", Version: cluster.Version},
		&cluster.SetPolicy{Policy: policy, By: "replay", Any: true},
	}
	for i := range nodes {
		commands = append(commands, &cluster.RegisterNode{Node: register(&nodes[i], i)})
		w.largest = max(w.largest, nodes[i].GPUs)
	}
	for _, c := range commands {
		if r := w.apply(c); r.Code != cluster.OK {
			return nil, fmt.Errorf("set up the replay: %s", r.Message)
		}
	}
	if cfg.Conditions != nil {
		w.real = newReality(w, nodes)
	}
	return w, nil
}

// register introduces a node. Ids follow the order of the file, so that ties between nodes do too.
func register(n *trace.Node, i int) cluster.Node {
	id := fmt.Sprintf("n%06d", i)
	out := cluster.Node{
		ID: cluster.NodeID(id), Name: n.Name, Address: "replay", Host: "replay", Incarnation: 1,
		CPUMilli: n.CPU, MemBytes: n.Mem,
	}
	if n.CPU == 0 {
		out.CPUMilli = trace.MaxCPUs * milli
	}
	if n.Mem == 0 {
		out.MemBytes = trace.MaxMiB * mebibyte
	}
	if n.Rack != "" {
		out.Labels = []cluster.Label{{Key: rackLabel, Value: n.Rack}}
	}
	for g := range n.GPUs {
		out.GPUs = append(out.GPUs, cluster.GPU{UUID: id + "-" + strconv.Itoa(int(g)), Type: n.Type, Healthy: true})
	}
	return out
}

// classOf finds the class of a job.
func (w *world) classOf(j *trace.Job) *class {
	key := shape{queue: j.Queue, types: strings.Join(j.Types, "|"), gpus: j.GPUs, milli: j.Milli, cpu: j.CPU, mem: j.Mem}
	key.elastic = w.real != nil && w.real.elastic(j)
	k := w.classes[key]
	if k == nil {
		if len(w.classes) >= maxClasses {
			clear(w.classes) // jobs that are alike would share one, no more
		}
		k = &class{spec: w.spec(j, key.elastic), figures: w.tally.of(j.Queue)}
		w.classes[key] = k
	}
	return k
}

// spec is what the job would have asked for. A gang that fits on one node is on one node, and a larger one that is a
// multiple of a node has whole nodes, as in all the published replays.
func (w *world) spec(j *trace.Job, elastic bool) *cluster.JobSpec {
	gpus := int64(j.GPUs)
	s := &cluster.JobSpec{
		Name: "replayed", Queue: j.Queue, Priority: cluster.DefaultPrio, GPUs: j.GPUs, GPUTypes: j.Types,
		CPUPerGPU: each(j.CPU, gpus), MemPerGPU: each(j.Mem, gpus),
		Launch: cluster.LaunchPerNode, Command: []string{"replayed"}, Preemptible: true,
	}
	switch {
	case j.Milli < cluster.WholeGPU:
		s.GPUMilli = j.Milli
	case j.GPUs <= w.largest:
		s.GPUsPerNode = j.GPUs
	case w.largest > 0 && j.GPUs%w.largest == 0:
		s.GPUsPerNode = w.largest
	}
	if w.real != nil {
		w.real.shape(s, elastic)
	}
	return s
}

func (w *world) apply(c cluster.Command) cluster.Result {
	w.index++
	r := w.state.Apply(w.index, w.now, c)
	if w.real != nil {
		w.real.changed(r.Changes)
	}
	if w.eyes != nil {
		w.eyes.changed(r.Changes)
	}
	return r
}

// come takes in a job that is there now.
func (w *world) come(j *arrival) {
	a := w.blank()
	*a = attempt{arrival: *j, nth: w.seen, left: j.job.Length}
	w.seen++
	if w.real != nil && !w.real.leading {
		w.tally.of(a.job.Queue).jobs++
		w.real.waiting = append(w.real.waiting, a)
		return
	}
	w.submit(a)
	a.class.figures.jobs++
}

// blank is an attempt to fill in.
func (w *world) blank() *attempt {
	n := len(w.spare)
	if n == 0 {
		return &attempt{}
	}
	a := w.spare[n-1]
	w.spare = w.spare[:n-1]
	return a
}

// forget lets another job have the memory of one that is over, unless somebody was told of it.
func (w *world) forget(a *attempt) {
	if !w.eyes.tells() {
		w.spare = append(w.spare, a)
	}
}

// submit hands in a job. What the cluster refuses (a gang larger than all of it) never runs.
func (w *world) submit(a *attempt) {
	w.eyes.came()
	a.class = w.classOf(&a.job)
	if w.largest == 0 { // a part without nodes: the state, which hopes for some, would let it wait for ever
		w.refuse(a, "there are no nodes for queue "+a.job.Queue)
		return
	}
	w.arriving = a // before it has a number: who looks at the change wants to know its name
	w.submission = cluster.SubmitJob{RequestID: strconv.FormatInt(a.nth, 10), User: a.job.User, Spec: a.class.spec}
	r := w.apply(&w.submission)
	if r.Code != cluster.OK {
		w.refuse(a, r.Message)
		return
	}
	a.id, a.crowd = r.Job, w.crowd.come(w.now)
	w.jobs.Set(a.id, a)
	w.taken++
}

func (w *world) refuse(a *attempt, why string) {
	w.tally.refuse(&a.job, why)
	a.refused = true
	w.eyes.outcome(a)
}

// attemptOf finds the job that a command names, which has not ended.
func (w *world) attemptOf(id cluster.JobID) *attempt {
	if a := w.jobs.At(id); a != nil {
		return a
	}
	return w.arriving
}

// length is the guessed service time of a job, for the orders that need one.
func (w *world) length(id cluster.JobID) time.Duration {
	if a := w.jobs.At(id); a != nil {
		return a.job.Guess
	}
	return 0 // it has ended
}

// obey does what a command of the scheduler has asked the agents for.
func (w *world) obey(c cluster.Command) {
	if w.real != nil {
		return // it sees what has changed
	}
	switch c := c.(type) {
	case *cluster.StartJob:
		w.started(c)
	case *cluster.EvictJob:
		w.evicted(c)
	}
}

// started lets the workers of a new epoch run at once.
func (w *world) started(c *cluster.StartJob) {
	a := w.jobs.At(c.Job)
	a.epoch, a.workers, a.began, a.stopped, a.held = c.Epoch, w.state.Job(c.Job).Workers, w.now, false, 0
	for k := range c.Workers {
		a.held += int64(len(c.Workers[k].GPUs)) * int64(a.job.Milli)
	}
	if a.first == 0 {
		a.first = w.now
	}
	a.worked = span{w.now.Add(a.owed), w.now.Add(a.owed + a.left)}
	w.running++
	w.tell(a, cluster.WorkerRunning)
	w.plan(event{at: a.worked.to, job: a.id, epoch: a.epoch})
}

// evicted begins the end of an epoch: the job writes a checkpoint of all that it has done, and is gone after its grace.
func (w *world) evicted(c *cluster.EvictJob) {
	a := w.jobs.At(c.Job)
	a.worked.to = max(min(w.now, a.worked.to), a.worked.from)
	a.left -= a.worked.to.Sub(a.worked.from)
	a.owed, a.stopped = w.cfg.RestartCost, true
	if c.Cause == cluster.StopPreempt {
		a.stops++
	}
	w.apply(&cluster.RecordCheckpoint{Job: a.id, Epoch: a.epoch, Step: int64((a.job.Length - a.left) / time.Second), Path: "replay"})
	if e := (event{at: w.now.Add(w.cfg.Grace), job: a.id, epoch: a.epoch, stop: true}); w.cfg.Grace > 0 {
		w.plan(e)
	} else {
		w.fire(&e)
	}
}

func (w *world) plan(e event) {
	w.seq++
	e.seq = w.seq
	w.events.push(e)
}

// fire ends an epoch. An event of an epoch that has ended otherwise, or of work that is no longer done, is void.
func (w *world) fire(e *event) {
	a := w.jobs.At(e.job)
	if a == nil || a.began == 0 || a.epoch != e.epoch || a.stopped != e.stop {
		return
	}
	w.measure(a)
	w.running--
	if !e.stop {
		w.finished(a)
	}
	w.tell(a, cluster.WorkerExited)
	a.began, a.workers = 0, nil
	if !e.stop {
		w.forget(a)
	}
}

// finished takes note of a job that has done its work. All else that is known of it is forgotten.
func (w *world) finished(a *attempt) {
	a.ended = w.now
	a.rho = w.fairness(a)
	jct := w.now.Sub(genesis) - a.job.Submit
	w.tally.end(a, jct.Seconds(), (jct - a.job.Length).Seconds())
	w.end = w.now
	w.eyes.outcome(a)
	w.jobs.Set(a.id, nil)
}

// measure adds up a job's epoch until now.
func (w *world) measure(a *attempt) {
	u := useOf(a.held, span{a.began, w.now}, a.worked, *w.meter.window)
	w.meter.use(u)
	a.class.figures.meter.use(u)
}

// tell reports all workers of a job's epoch, node by node.
func (w *world) tell(a *attempt, st cluster.WorkerState) {
	for k := range a.workers {
		p := &a.workers[k]
		w.one[0] = cluster.WorkerReport{Job: a.id, Epoch: a.epoch, Rank: p.Rank, State: st, Stopped: a.stopped}
		w.report.Node, w.report.Workers = p.Node, w.one[:]
		w.apply(&w.report)
	}
}
