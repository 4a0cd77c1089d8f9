package planner

import (
	"cmp"
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// entry is a pending job's place in the index.
type entry struct {
	job  *cluster.Job
	lane *lane
	key  int64  // see order.go; the lower starts first
	pos  int32  // in the lane's heap or the back-off heap, -1: in none
	ripe uint32 // second in which it will be overdue, see ripening; 0: never, or not in a lane yet
}

func (e *entry) before(o *entry) bool {
	if e.key != o.key {
		return e.key < o.key
	}
	return older(e.job, o.job)
}
func (e *entry) at() int      { return int(e.pos) }
func (e *entry) moveTo(i int) { e.pos = int32(i) } //nolint:gosec // at most MaxLiveJobs

// older orders jobs by when they might have started first, then by id.
func older(a, b *cluster.Job) bool {
	if a.ReadyAt != b.ReadyAt {
		return a.ReadyAt < b.ReadyAt
	}
	return a.ID < b.ID
}

// sleeper is an entry that waits for its back-off to end.
type sleeper struct{ *entry }

func (e sleeper) before(o sleeper) bool {
	return cmp.Or(cmp.Compare(e.job.NotBefore, o.job.NotBefore), cmp.Compare(e.job.ID, o.job.ID)) < 0
}

// laneKey tells jobs apart that may be treated differently. Jobs of one lane
// are alike to the planner but for their order.
type laneKey struct {
	queue       int // see quota.Queue.ID
	user        string
	shape       int
	priority    int32
	limit       time.Duration
	array       cluster.JobID // only if the array bounds how many run at once
	preemptible bool
}

// laneKeyOf is the key of the lane of a job in a queue.
func laneKeyOf(j *cluster.Job, q *quota.Queue, fs *fleet.Shape) laneKey {
	key := laneKey{
		queue: q.ID, user: j.User, shape: fs.ID, priority: j.Spec.Priority,
		limit: j.Spec.TimeLimit, preemptible: j.Spec.Preemptible,
	}
	if j.Array != 0 && j.Spec.Array.Parallel > 0 {
		key.array = j.Array
	}
	return key
}

// lane is a line of pending jobs that are alike: if its first job cannot
// start, none can. So a long queue costs as much as it has lanes.
type lane struct {
	laneKey
	q      *quota.Queue
	shape  *shape
	jobs   heapOf[*entry]
	borrow bool // it would hold more than its queue's quota
	group  *group
	offset int64 // what fair share adds to the keys of its jobs: the group's
	pos    int32 // in the shape's heap, -1: not there
	parked *waitlist
	wpos   int32     // in its row of the wait list, -1: in none
	from   *waitlist // where it was parked last; others may wait there still
	need   int64     // milli-GPUs that the next job takes at least
	// blocked is why the lane's jobs wait, as the jobs say it; unsaid are
	// those that say something else as yet.
	blocked string
	unsaid  []*entry
	listed  bool // in the index's list of lanes with something unsaid
	held    bool // its queue may not take the GPU types that are free
	gone    bool // its last job has left it
	aside   asideKind
	rests   bool // see rest.go
	restsAt int  // in the list of those that do
	away    int  // jobs of it that are set aside
}

// asideKind is where a lane was whose only job is set aside.
type asideKind uint8

const (
	asideNot  asideKind = 0
	asideIn   asideKind = 1
	asideHeld asideKind = 2
)

// before orders lanes by their first jobs. What a queue has been promised comes
// before what is borrowed, whatever the priority: otherwise a queue could wait
// for its own GPUs behind another one's jobs.
func (l *lane) before(o *lane) bool { return l.sooner(l.jobs.items[0], o, o.jobs.items[0]) }

// sooner is before, of a job in the lane and one in the other.
func (l *lane) sooner(a *entry, o *lane, b *entry) bool {
	switch {
	case l.borrow != o.borrow:
		return !l.borrow
	case l.priority != o.priority:
		return l.priority > o.priority
	case a.key+l.offset != b.key+o.offset:
		return a.key+l.offset < b.key+o.offset
	default:
		return older(a.job, b.job)
	}
}
func (l *lane) at() int      { return int(l.pos) }
func (l *lane) moveTo(i int) { l.pos = int32(i) } //nolint:gosec // few

// shape holds the lanes that ask the same of the nodes.
type shape struct {
	*fleet.Shape

	lanes heapOf[*lane]
	pos   int32 // among the open shapes, -1: closed or empty
	// closed: no gang of this shape fits, whoever asks. It opens again when
	// room grows.
	closed bool
	inTurn bool   // all of its lanes say that they wait their turn; see sayTurn
	place  int32  // among the closed ones
	why    string // as said to the jobs
	as     whyAs  // what that was found out of
	said   said
	held   []*lane // lanes that are out of the heap, see lane.held
}

func (s *shape) before(o *shape) bool { return s.lanes.items[0].before(o.lanes.items[0]) }
func (s *shape) at() int              { return int(s.pos) }
func (s *shape) moveTo(i int)         { s.pos = int32(i) } //nolint:gosec // few

// waitlist holds the lanes that wait for one limit of one queue, those that
// need equally much in their order.
type waitlist struct {
	key  parkKey
	rows []*row // by need
}

type row struct {
	need  int64
	lanes heapOf[waiter]
}

type waiter struct{ *lane }

func (w waiter) before(o waiter) bool { return w.lane.before(o.lane) }
func (w waiter) at() int              { return int(w.wpos) }
func (w waiter) moveTo(i int)         { w.wpos = int32(i) } //nolint:gosec // few

// row returns the row of lanes that need so much, made if there is none.
func (w *waitlist) row(need int64) *row {
	i, ok := slices.BinarySearchFunc(w.rows, need, func(r *row, want int64) int { return cmp.Compare(r.need, want) })
	if !ok {
		w.rows = slices.Insert(w.rows, i, &row{need: need})
	}
	return w.rows[i]
}

func (w *waitlist) add(l *lane) {
	l.parked = w
	w.row(l.need).lanes.push(waiter{l})
}

func (w *waitlist) drop(l *lane) {
	l.parked = nil
	w.row(l.need).lanes.remove(waiter{l})
}
