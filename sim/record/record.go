package record

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/gangline/gangline/sim/replay"
	"github.com/gangline/gangline/sim/trace"
)

// Bounds of what is kept. More is counted, not kept.
const (
	maxQueues    = 256  // with a line of their own; further ones share one
	maxUsers     = 8192 // likewise
	maxNodes     = 24   // of the Gantt chart
	maxBars      = 1600 // of the Gantt chart: the longest ones
	maxIncidents = 400
)

// Others is the queue or user that stands for all beyond the bounds.
const Others = "(others)"

// Record is what is kept of a replay. Make one with New, hand its Watch to the replay, and read it afterwards.
type Record struct {
	time   *timeline
	end    time.Duration
	queues map[string]*Queue
	order  []*Queue
	users  map[string]*User
	nodes  map[string]*Node
	shown  []*Node
	bars   int

	gpuTime, fragments int            // rows
	events             map[string]int // rows of incidents, by kind
	jct                [decades * perDecade]int
	finished           int

	Incidents []replay.Incident // the first ones
	Counts    map[string]int    // of all, by kind

	ends []float32 // JCT by row, s; NaN: none. Only if asked for
}

// Queue is a queue's part of a Record.
type Queue struct {
	Name                                            string
	held, pending, pendingGPUs, started, startsWait int     // rows
	Held                                            float64 // GPU-seconds
}

// User is a user's part of a Record.
type User struct {
	Name      string
	Jobs      int
	Finished  int
	JCT, Wait float64 // sums, s
}

// Node is a machine of the Gantt chart.
type Node struct {
	Name string
	GPUs int
	busy int // row
	away int // row
	Bars []Bar

	lost time.Duration // since when it is away; -1: it is there
}

// Bar is a time in which a job held GPUs of a node.
type Bar struct {
	From, To time.Duration
	GPUs     []int
	Job      string
	Queue    string
	All      int // GPUs of the whole gang
	Why      string
}

// New returns a Record for a replay on some nodes. With keepJobs it knows every job's completion time afterwards.
func New(nodes []trace.Node, keepJobs bool) *Record {
	r := &Record{
		time: newTimeline(), queues: map[string]*Queue{}, users: map[string]*User{}, nodes: map[string]*Node{}, Counts: map[string]int{},
	}
	r.gpuTime, r.fragments = r.time.row(), r.time.row()
	r.events = map[string]int{replay.JobFault: r.time.row(), replay.NodeLost: r.time.row(), replay.NodeBack: r.time.row()}
	n := min(len(nodes), maxNodes)
	for i := range n {
		at := &nodes[i*len(nodes)/n]
		x := &Node{Name: at.Name, GPUs: int(at.GPUs), busy: r.time.row(), away: r.time.row(), lost: -1}
		r.nodes[x.Name] = x
		r.shown = append(r.shown, x)
	}
	if keepJobs {
		r.ends = []float32{}
	}
	return r
}

// Watch returns what the replay must tell.
func (r *Record) Watch() *replay.Watch {
	return &replay.Watch{
		Outcome: r.outcome, Levels: r.levels, Hold: r.hold, Incident: r.incident,
		Samplers: []replay.Sampler{{Every: time.Second, Take: r.sample}},
	}
}

func (r *Record) queue(name string) *Queue {
	q := r.queues[name]
	if q != nil {
		return q
	}
	if len(r.order) >= maxQueues && name != Others {
		q = r.queue(Others)
		r.queues[name] = q
		return q
	}
	t := r.time
	q = &Queue{Name: name, held: t.row(), pending: t.row(), pendingGPUs: t.row(), started: t.row(), startsWait: t.row()}
	r.queues[name] = q
	r.order = append(r.order, q)
	return q
}

func (r *Record) levels(l *replay.Levels) {
	q := r.queue(l.Queue)
	r.end = max(r.end, l.To)
	held := float64(l.Held) / milli
	q.Held += float64(held * (l.To - l.From).Seconds())
	r.time.add(q.held, l.From, l.To, held)
	r.time.add(q.pending, l.From, l.To, float64(l.Pending))
	r.time.add(q.pendingGPUs, l.From, l.To, float64(l.PendingGPUs)/milli)
	if l.Started > 0 {
		r.time.put(q.started, l.From, float64(l.Started))
		r.time.put(q.startsWait, l.From, l.StartedWait.Seconds())
	}
}

const milli = 1000

func (r *Record) sample(s *replay.Sample) (time.Duration, error) {
	every := r.time.width
	gpus := float64(s.GPUs)
	r.time.add(r.gpuTime, s.At, s.At+every, gpus)
	r.time.add(r.fragments, s.At, s.At+every, float64(gpus*s.Fragmented))
	return r.time.width, nil
}

func (r *Record) hold(h *replay.Hold) {
	r.end = max(r.end, h.To)
	all := 0
	for i := range h.Places {
		all += len(h.Places[i].GPUs)
	}
	for i := range h.Places {
		p := &h.Places[i]
		n := r.nodes[p.Node]
		if n == nil {
			continue
		}
		r.time.add(n.busy, h.From, h.To, float64(len(p.GPUs))*float64(h.Job.Milli)/milli)
		n.Bars = append(n.Bars, Bar{
			From: h.From, To: h.To, GPUs: slices.Clone(p.GPUs), Job: h.Job.ID, Queue: h.Job.Queue, All: all, Why: h.Why,
		})
		if r.bars++; r.bars > 2*maxBars {
			r.thin()
		}
	}
}

// thin drops the shortest bars.
func (r *Record) thin() {
	var spans []time.Duration
	for _, n := range r.shown {
		for i := range n.Bars {
			spans = append(spans, n.Bars[i].To-n.Bars[i].From)
		}
	}
	slices.Sort(spans)
	least := spans[max(len(spans)-maxBars, 0)]
	r.bars = 0
	for _, n := range r.shown {
		n.Bars = slices.DeleteFunc(n.Bars, func(b Bar) bool { return b.To-b.From <= least && len(spans) > maxBars })
		r.bars += len(n.Bars)
	}
}

func (r *Record) incident(i *replay.Incident) {
	r.end = max(r.end, i.At)
	r.Counts[i.Kind]++
	if len(r.Incidents) < maxIncidents {
		r.Incidents = append(r.Incidents, *i)
	}
	r.time.put(r.events[i.Kind], i.At, 1)
	n := r.nodes[i.Node]
	if n == nil {
		return
	}
	switch {
	case i.Kind == replay.NodeLost && n.lost < 0:
		n.lost = i.At
	case i.Kind == replay.NodeBack && n.lost >= 0:
		r.time.add(n.away, n.lost, i.At, 1)
		n.lost = -1
	}
}

func (r *Record) outcome(o *replay.Outcome) error {
	u := r.users[o.Job.User]
	if u == nil {
		name := o.Job.User
		if len(r.users) >= maxUsers {
			name = Others
		}
		if u = r.users[name]; u == nil {
			u = &User{Name: name}
			r.users[name] = u
		}
	}
	u.Jobs++
	if o.State != replay.Finished {
		return nil
	}
	jct := o.JCT().Seconds()
	u.Finished++
	u.JCT += jct
	u.Wait += o.Wait().Seconds()
	r.finished++
	r.jct[bucketOf(jct)]++
	if r.ends != nil {
		for len(r.ends) <= o.Row {
			r.ends = append(r.ends, float32(math.NaN()))
		}
		r.ends[o.Row] = float32(jct)
	}
	return nil
}

// The histogram of completion times: equal parts of each power of ten, from 1 s on.
const (
	decades   = 10
	perDecade = 40
)

func bucketOf(s float64) int {
	if s <= 1 {
		return 0
	}
	return min(int(math.Log10(s)*perDecade+1e-9), decades*perDecade-1) // logarithms differ in their last digit between machines
}

// Users are in order of names.
func (r *Record) Users() []*User {
	out := make([]*User, 0, len(r.users))
	for _, u := range r.users { // any order: sorted below
		out = append(out, u)
	}
	slices.SortFunc(out, func(a, b *User) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// JCT is the completion time of a job by its row, in seconds; NaN: not known.
func (r *Record) JCT(row int) float64 {
	if row >= len(r.ends) {
		return math.NaN()
	}
	return float64(r.ends[row])
}

// Rows is how many jobs JCT may know.
func (r *Record) Rows() int { return len(r.ends) }
