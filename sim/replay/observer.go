package replay

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/sim/trace"
)

// observer sees what a replay does, for a Watch. It looks only at what commands have changed in the state, so that it
// is right whoever drives the world. It is one for all parts of a replay.
type observer struct {
	watch  *Watch
	looks  bool // at jobs and nodes as they change
	w      *world
	part   string
	feed   *feed
	jobs   map[cluster.JobID]*seen // that have not ended
	queues map[string]*queueEyes
	order  []*queueEyes // by name
	nodes  map[cluster.NodeID]bool
	frag   fragments
	due    []time.Duration // by sampler: when it is next
	every  []time.Duration

	progress Progress
	err      error // of the watch
}

// seen is a job as it was when it last changed.
type seen struct {
	row    int
	job    *trace.Job
	queue  *queueEyes
	state  cluster.JobState
	epoch  cluster.Epoch
	asked  int64 // GPUs, thousandths
	held   int64
	from   cluster.Time // of the epoch; before its first start: of the wait
	places []Spot
	begun  bool
}

// queueEyes is a queue as it is since a moment.
type queueEyes struct {
	now    Levels // From is since when; To is not set
	ageSum int64  // over pending jobs: when they began to wait, ms since genesis
}

func newObserver(watch *Watch, total int) *observer {
	if watch == nil {
		return nil
	}
	e := &observer{watch: watch}
	e.looks = watch.Levels != nil || watch.Hold != nil || watch.Incident != nil || len(watch.Samplers) > 0
	e.progress.eyes, e.progress.Total = e, total
	for _, s := range watch.Samplers {
		e.every = append(e.every, s.Every)
	}
	return e
}

// tells reports whether anybody may have been told of a job, and know it by its address.
func (e *observer) tells() bool {
	return e != nil && (e.looks || e.watch.Outcome != nil || e.watch.Decision != nil)
}

// enter begins a part.
func (e *observer) enter(w *world, name string, f *feed) {
	if e == nil {
		return
	}
	e.w, e.part, e.feed = w, name, f
	e.jobs, e.queues, e.order = map[cluster.JobID]*seen{}, map[string]*queueEyes{}, nil
	e.nodes = map[cluster.NodeID]bool{}
	e.frag = newFragments(w.largest)
	e.due = make([]time.Duration, len(e.every))
	w.state.EachNode(func(n *cluster.Node) bool {
		e.nodes[n.ID] = n.State == cluster.NodeReady
		return true
	})
}

// leave ends a part.
func (e *observer) leave() error {
	if e == nil {
		return nil
	}
	at := e.w.now.Sub(genesis)
	ids := make([]cluster.JobID, 0, len(e.jobs))
	for id := range e.jobs { // any order: sorted below
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if s := e.jobs[id]; s.held > 0 {
			e.gaveBack(s, "the replay ended")
		}
	}
	for _, q := range e.order {
		e.emit(q, at)
	}
	e.samples(e.w.now + 1)
	for a := range e.w.jobs.All() {
		e.outcome(a)
	}
	return e.err
}

// came counts a job that was handed in.
func (e *observer) came() {
	if e != nil {
		e.progress.Submitted++
	}
}

func (e *observer) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *observer) now() time.Duration { return e.w.now.Sub(genesis) }

// changed looks at what a command has changed. Most replays are watched for their progress alone, which needs none of it.
func (e *observer) changed(changes []cluster.Change) {
	if !e.looks {
		return
	}
	for i := range changes {
		switch c := &changes[i]; {
		case c.Job != 0:
			if j := e.w.state.Job(c.Job); j != nil {
				e.jobChanged(j)
			}
		case c.Node != "":
			if n := e.w.state.Node(c.Node); n != nil {
				e.nodeChanged(n)
			}
		}
	}
}

// jobChanged compares a job with what was seen of it.
func (e *observer) jobChanged(j *cluster.Job) {
	s := e.jobs[j.ID]
	if s == nil {
		if j.State.Final() {
			return
		}
		s = e.meet(j)
	} else if s.state == j.State && s.epoch == j.Epoch {
		return
	}
	was := s.state
	if was.Holding() && (!j.State.Holding() || j.Epoch != s.epoch) {
		e.gaveBack(s, whyEnded(j))
		if j.Stop == cluster.StopFailure || j.Stop == cluster.StopNodeLost || j.Stop == cluster.StopLaunchStuck || j.State == cluster.Failed {
			e.incident(JobFault, "", s, j.Reason)
		}
	}
	q := e.touch(s.queue)
	if was == cluster.Pending {
		q.now.Pending--
		q.now.PendingGPUs -= s.asked
		q.ageSum -= int64(s.from.Sub(genesis) / time.Millisecond)
	}
	if j.State.Holding() && (!was.Holding() || j.Epoch != s.epoch) {
		e.took(s, q, j)
	}
	if j.State == cluster.Pending {
		q.now.Pending++
		q.now.PendingGPUs += s.asked
		s.from = j.PendingAt
		q.ageSum += int64(s.from.Sub(genesis) / time.Millisecond)
	}
	s.state, s.epoch = j.State, j.Epoch
	if j.State.Final() {
		delete(e.jobs, j.ID)
	}
}

// meet sees a job for the first time.
func (e *observer) meet(j *cluster.Job) *seen {
	a := e.w.attemptOf(j.ID)
	s := &seen{row: a.row, job: &a.job, asked: int64(j.Spec.GPUs) * int64(j.Spec.Share()), from: e.w.now}
	if s.queue = e.queues[a.job.Queue]; s.queue == nil {
		s.queue = &queueEyes{now: Levels{Part: e.part, Queue: a.job.Queue, From: e.now()}}
		e.queues[a.job.Queue] = s.queue
		at, _ := slices.BinarySearchFunc(e.order, a.job.Queue, func(q *queueEyes, name string) int { return cmp.Compare(q.now.Queue, name) })
		e.order = slices.Insert(e.order, at, s.queue)
	}
	e.jobs[j.ID] = s
	e.frag.note(&a.job)
	return s
}

// took begins an epoch.
func (e *observer) took(s *seen, q *queueEyes, j *cluster.Job) {
	s.held = int64(j.Held()) * int64(j.Spec.Share())
	q.now.Running++
	q.now.Held += s.held
	if !s.begun {
		s.begun = true
		q.now.Started++
		q.now.StartedWait += e.w.now.Sub(j.SubmittedAt)
	}
	s.from = e.w.now
	if e.watch.Hold != nil {
		s.places = s.places[:0]
		for i := range j.Workers {
			s.places = e.place(s.places, j.Workers[i].Node, j.Workers[i].GPUs)
		}
	}
}

// gaveBack ends an epoch.
func (e *observer) gaveBack(s *seen, why string) {
	q := e.touch(s.queue)
	q.now.Running--
	q.now.Held -= s.held
	s.held = 0
	if e.watch.Hold != nil {
		e.watch.Hold(&Hold{
			Part: e.part, Row: s.row, Job: s.job, Epoch: int(s.epoch), From: s.from.Sub(genesis), To: e.now(), Places: s.places, Why: why,
		})
	}
}

// place adds some GPUs to the places of a gang.
func (e *observer) place(to []Spot, id cluster.NodeID, gpus []string) []Spot {
	name := string(id)
	if n := e.w.state.Node(id); n != nil {
		name = n.Name
	}
	if len(to) == 0 || to[len(to)-1].Node != name {
		to = append(to, Spot{Node: name})
	}
	p := &to[len(to)-1]
	for _, uuid := range gpus {
		if n, err := strconv.Atoi(uuid[strings.LastIndexByte(uuid, '-')+1:]); err == nil {
			p.GPUs = append(p.GPUs, n)
		}
	}
	return to
}

// whyEnded says how an epoch ended.
func whyEnded(j *cluster.Job) string {
	switch {
	case j.State == cluster.Succeeded:
		return Finished
	case j.Stop == cluster.StopPreempt:
		return "stopped for another job"
	case j.Stop == cluster.StopMove, j.Stop == cluster.StopResize:
		return "moved or resized"
	default:
		return j.Reason
	}
}

// nodeChanged compares a node with what was seen of it.
func (e *observer) nodeChanged(n *cluster.Node) {
	up, known := e.nodes[n.ID]
	is := n.State == cluster.NodeReady
	if e.nodes[n.ID] = is; known && up == is {
		return
	}
	if is && known {
		e.incident(NodeBack, n.Name, nil, "its agent reached the leader again")
	} else if !is {
		e.incident(NodeLost, n.Name, nil, n.Reason)
	}
}

func (e *observer) incident(kind, node string, s *seen, text string) {
	if e.watch.Incident == nil {
		return
	}
	x := Incident{Part: e.part, At: e.now(), Kind: kind, Node: node, Row: -1, Text: e.named(text)}
	if s != nil {
		x.Row, x.Job = s.row, s.job.ID
	}
	e.watch.Incident(&x)
}

// touch is called before a queue's levels change: what they were until now is told.
func (e *observer) touch(q *queueEyes) *queueEyes {
	if e.now() > q.now.From {
		e.emit(q, e.now())
	}
	return q
}

// emit tells a queue's levels until a moment.
func (e *observer) emit(q *queueEyes, at time.Duration) {
	if e.watch.Levels != nil {
		told := q.now
		told.To = at
		e.watch.Levels(&told)
	}
	q.now.From, q.now.Started, q.now.StartedWait = at, 0, 0
}

// moment ends a moment of the replay and reports whether to go on.
func (e *observer) moment() bool {
	if e.watch.Progress != nil {
		e.progress.Part, e.progress.Now = e.part, e.now()
		if e.progress.Total == 0 {
			e.progress.Total = e.feed.total()
		}
		return e.watch.Progress(&e.progress) && e.err == nil
	}
	return e.err == nil
}

// decided tells of a command that the state has taken.
func (e *observer) decided(c cluster.Command) {
	if e.watch.Decision == nil {
		return
	}
	d := Decision{Part: e.part, At: e.now()}
	id := cluster.JobID(0)
	switch c := c.(type) {
	case *cluster.StartJob:
		id = c.Job
		for i := range c.Workers {
			d.Places = e.place(d.Places, c.Workers[i].Node, c.Workers[i].GPUs)
		}
	case *cluster.EvictJob:
		id, d.Stop, d.Reason = c.Job, true, e.named(c.Reason)
	default:
		return
	}
	a := e.w.attemptOf(id)
	d.Row, d.Job = a.row, &a.job
	e.watch.Decision(&d)
}

// jobNumber is how the scheduler's reasons name jobs.
var jobNumber = regexp.MustCompile(`\bjob (\d+)\b`)

// named gives the jobs in a reason of the scheduler the names that the trace has for them.
func (e *observer) named(reason string) string {
	return jobNumber.ReplaceAllStringFunc(reason, func(m string) string {
		if id, err := strconv.ParseUint(m[len("job "):], 10, 64); err == nil {
			if a := e.w.jobs.At(cluster.JobID(id)); a != nil && a.job.ID != "" {
				return "job " + a.job.ID
			}
		}
		return m
	})
}
