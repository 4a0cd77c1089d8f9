package planner

import (
	"slices"
	"time"

	"github.com/gangline/gangline/scheduler/cluster"
	"github.com/gangline/gangline/scheduler/planner/fleet"
	"github.com/gangline/gangline/scheduler/planner/quota"
)

// Index is what the planner keeps between plans: the pending jobs in lanes, the
// running ones by what they hold, the room on the nodes, and what each queue
// uses. It is derived from a State and follows it by the State's journal, so
// that a plan costs what has changed and not what there is. An index built
// anew from the same State makes the same plans.
//
// One goroutine uses an Index. The zero Index is ready.
type Index struct {
	cursor cluster.Cursor
	policy *cluster.Policy
	state  *cluster.State // as of the last Follow
	now    cluster.Time   // of the plan being made
	cfg    Config

	fleet *fleet.Fleet
	tree  *quota.Tree

	jobs      known
	runRoom   []run           // see newRun
	spareRuns []*run          // of jobs that hold nothing any more
	entryRoom []entry         // see newEntry
	asleep    heapOf[sleeper] // pending, in back-off
	behind    int             // pending, but wait for other jobs to end: in no lane, and nothing is theirs

	shapes      []*shape // by fleet.Shape.ID; nil: no job ever had it
	open        heapOf[*shape]
	closed      []*shape      // of them, in no order
	blocker     *lane         // that kept all behind it from starting in the last plan, as of
	blockedAs   fleet.Version // this one of the fleet
	lanes       map[laneKey]*lane
	recent      *lane   // of them: the last one that a job was put into
	resting     []*lane // of them, see rest.go
	restless    int     // the next of those to be forgotten
	groups      map[groupKey]*group
	covered     []int64   // scratch of requote
	byQueue     [][]*lane // lanes by quota.Queue.ID, see lanesOf
	parked      map[parkKey]*waitlist
	arrays      map[cluster.JobID]*array
	mixAt       cluster.Time // period in which the mix was looked at last
	asked       []asked      // for each shape, by ID: what asks for it now
	mixCounts   []int64      // of the mix that the score knows, by shape
	mixTotal    int64
	varied      bool         // some job ever asked for more than whole GPUs, or for less
	roundAt     cluster.Time // when jobs may next be stopped by the order alone
	whyNext     int          // the shape that reconsider looked at last
	unsaid      []*lane      // lanes with something to say to their jobs
	reasons     []Reason     // memory of those of the last plan
	kept        map[cluster.JobID]*keeping
	ripening    heapOf[ripening]                // see overdue.go
	keptList    []cluster.JobID                 // of them, see keptInOrder; nil: to be made
	keptUntil   cluster.Time                    // the latest moment until which something is kept, as of keptList
	keptStale   cluster.Time                    // after which the first of it is looked at again, likewise
	keptLeast   int32                           // the lowest priority of a job for which something is, likewise
	jobHolds    map[cluster.NodeID][]fleet.Hold // by what is kept for jobs
	windowHolds map[cluster.NodeID][]fleet.Hold // by the policy's reservations
	plain       bool                            // the policy only starts jobs in order: see inOrderAlone
	shared      bool                            // limits, quotas or the order go by who holds how much, so that the tree is to know
	hasQuota    bool                            // some queue has been promised GPUs
	firm        map[firmKey]int64               // milli-GPUs
	parts       map[int][]*quota.Queue          // queues by the one above them
	owing       map[int]map[string]int64        // see owed, by queue and GPU type
	elastic     int                             // elastic jobs that hold GPUs
	priorities  [cluster.MaxPriority + 1]int32  // preemptible jobs that hold GPUs, by priority
	running     []*group                        // those of which jobs hold GPUs, see roster.go
	ages        []time.Duration                 // scratch of a market's prices
	market      market                          // the last one
	marketNodes map[cluster.NodeID]*onNode      // of all markets
	searches    uint32                          // for victims, so far
	lists       uint32                          // of who holds what, so far
	stamp       quota.Stamp                     // as of which running jobs' offsets were computed last
	stamps      uint32                          // how many there were
	coming      []coming                        // scratch of soonest
	ends        []cluster.Time                  // scratch of clearAt

	// nodesNews: nodes have changed since dropStale looked at those that are kept,
	// in more than who holds them, or others are kept.
	nodesNews bool
	// news: something has changed since the last plan by which a job might start
	// that could not; late: since the last thorough one.
	news, late bool

	expected     []Start             // by the last plan; the state should show them by now
	workers      []cluster.Placement // of these, and of others that this plan has tried
	promised     []cluster.JobID     // for which the last plan keeps something else; likewise
	factorsAt    cluster.Time        // for which the lanes' offsets were computed
	startedMilli int64               // milli-GPUs of the starts that were planned since
	windowsAt    cluster.Time        // next time at which a reservation begins or ends
	looks        int                 // blocked jobs that this plan looks at for them
	aside        []*entry            // scratch of startInOrder
	left         int                 // reservations that this plan may still make
	claiming     bool                // room is sought by stopping jobs: nobody knows when it will be there, so kept nodes are for nobody else
	filling      bool                // this plan may use kept nodes for those who will be gone in time
	unsorted     bool                // fair share has moved lanes since fills was sorted
	fills        []*lane             // who may, in order
	heldLanes    int                 // lanes in some shape's held list
}

// parkKey names what a lane waits for: the limit of a queue, or of one user in
// it, for a GPU type.
type parkKey struct {
	queue   int
	user    string
	gpuType string
}

// array is a job array whose members may not all run at once.
type array struct {
	holding int32
	lanes   []*lane
}

// Follow brings the index up to the state, by what has changed since the last
// call, or from scratch if that is not known. The state must not change while
// the index is used; a snapshot of it will do.
func (x *Index) Follow(s *cluster.State) {
	changes, known := s.ChangesSince(x.cursor)
	x.cursor, x.state = s.Cursor(), s
	if !known || x.policy != s.Policy() {
		x.rebuild(s)
		return
	}
	x.settle(s)
	var grew bool
	for i := range changes {
		switch c := &changes[i]; {
		case c.Policy:
		case c.Node != "":
			x.nodesNews = x.nodesNews || !c.Minor
			grew = x.followNode(c.Node) || grew
		case c.Job != 0:
			x.followJob(s.Job(c.Job), c.Job)
		default:
			x.followAccount(c.Account, c.Gone)
		}
	}
	if grew {
		x.learnCapacity()
	}
}

// rebuild reads all of a state.
func (x *Index) rebuild(s *cluster.State) {
	*x = Index{
		cursor: s.Cursor(), policy: s.Policy(), state: s, news: true,
		fleet: fleet.New(s.Policy().Score, s.Policy().Levels), tree: quota.New(s.Policy()),
		lanes: map[laneKey]*lane{}, groups: map[groupKey]*group{},
		parked: map[parkKey]*waitlist{}, arrays: map[cluster.JobID]*array{},
		kept: map[cluster.JobID]*keeping{}, jobHolds: map[cluster.NodeID][]fleet.Hold{}, windowHolds: map[cluster.NodeID][]fleet.Hold{},
	}
	x.firm, x.parts = map[firmKey]int64{}, map[int][]*quota.Queue{}
	x.owing = map[int]map[string]int64{}
	x.learnParts()
	p := x.policy
	x.hasQuota = slices.ContainsFunc(p.Queues, func(q cluster.QueuePolicy) bool { return len(q.Quota) > 0 })
	x.shared = !x.unlimited() || p.Order == cluster.OrderGangline
	x.plain = p.Backfill.Off && p.Preemption.Off && !p.Defrag.On && len(p.Windows) == 0 && x.unlimited()
	s.EachNode(func(n *cluster.Node) bool {
		x.fleet.Put(n)
		return true
	})
	x.learnCapacity()
	s.EachAccount(func(a *cluster.Account) bool {
		x.followAccount(a, false)
		return true
	})
	s.EachHolding(func(j *cluster.Job) bool {
		x.followJob(j, j.ID)
		return true
	})
	s.EachPending(func(j *cluster.Job) bool {
		x.followJob(j, j.ID)
		return true
	})
}

// learnCapacity tells the queues how many GPUs there are.
func (x *Index) learnCapacity() {
	for _, t := range x.fleet.Types() {
		x.tree.SetCapacity(t, x.fleet.Type(t).Alive)
	}
}

// Wake is when something that only time changes is due: the end of a back-off,
// or a reservation of the policy that begins or ends; 0: nothing.
func (x *Index) Wake() cluster.Time {
	at := cluster.Time(0)
	if x.asleep.len() > 0 {
		at = x.asleep.top().job.NotBefore
	}
	for i := range x.policy.Windows {
		w := &x.policy.Windows[i]
		for _, t := range []cluster.Time{w.Start, w.End} {
			if t > x.now && (at == 0 || t < at) {
				at = t
			}
		}
	}
	return at
}
